/** Orders over HTTP. Perdure is injected; what it refuses becomes a status in one filter. */
import {
  type ArgumentsHost,
  Body,
  Catch,
  Controller,
  type ExceptionFilter,
  Get,
  HttpCode,
  Param,
  Post,
  ServiceUnavailableException,
  UseFilters,
} from "@nestjs/common";
import type { Response } from "express";
import { durable, Perdure, PerdureError } from "perdure";
import { z } from "zod";
import { answerTo, health, Order, Payment, paid, show } from "../shop.ts";
import { OrdersService } from "./orders.service.ts";

@Catch(PerdureError, z.ZodError)
export class RefusalFilter implements ExceptionFilter {
  catch(error: unknown, host: ArgumentsHost): void {
    const { status, body } = answerTo(error);
    host.switchToHttp().getResponse<Response>().status(status).json(body);
  }
}

@Controller()
@UseFilters(RefusalFilter)
export class OrdersController {
  constructor(
    private readonly perdure: Perdure,
    private readonly orders: OrdersService,
  ) {}

  @Post("orders")
  @HttpCode(202)
  async take(@Body() body: unknown): Promise<{ id: string }> {
    const order = Order.parse(body);
    // Durable when it resolves. The same order again is the run that there is; another order of that id is a 409.
    const run = await this.perdure.start(durable(this.orders.process).with({ id: order.id }), order);
    return { id: run.id };
  }

  @Get("orders/:id")
  show(@Param("id") id: string): Promise<object> {
    return show(this.perdure, id);
  }

  @Post("orders/:id/payment")
  @HttpCode(202)
  async pay(@Param("id") id: string, @Body() body: unknown): Promise<{ ok: true }> {
    const payment = Payment.parse(body);
    await this.perdure.send(id, paid, payment, { reference: payment.delivery });
    return { ok: true };
  }

  @Get("health")
  async health(): Promise<{ ok: boolean }> {
    const state = await health(this.perdure);
    if (!state.ok) throw new ServiceUnavailableException(state);
    return state;
  }
}
