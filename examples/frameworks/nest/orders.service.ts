/** The orders of the shop: a service like any other, with its dependencies injected, whose methods are durable. */
import { setTimeout as pause } from "node:timers/promises";
import { Injectable, Module } from "@nestjs/common";
import { currentStep, step, workflow } from "perdure";
import type { z } from "zod";
import { Order, paid } from "../shop.ts";

/** The robots of a warehouse. Without one, packing takes five seconds. */
@Injectable()
export class Warehouse {
  async pack(order: string, signal: AbortSignal): Promise<string> {
    const url = process.env.WAREHOUSE_URL;
    if (!url) return pause(5000, "a box", { signal });
    return (await fetch(`${url}/${order}`, { method: "POST", signal })).text();
  }
}

@Injectable()
export class OrdersService {
  constructor(private readonly warehouse: Warehouse) {}

  @step()
  async reserve(order: string): Promise<void> {
    console.log(`${order}: reserved`);
  }

  @step()
  async pack(order: string): Promise<string> {
    console.log(`${order}: packing`);
    return this.warehouse.pack(order, currentStep().signal);
  }

  @step()
  async ship(order: string): Promise<void> {
    console.log(`${order}: shipped`);
  }

  // Named, so that a build that shortens the names of classes does not rename it.
  @workflow({ name: "process-order", input: Order })
  async process({ id }: z.infer<typeof Order>): Promise<string> {
    await this.reserve(id);
    const payment = await paid.wait({ timeout: { minutes: 30 } });
    if (!payment) return "not paid in time";
    const parcel = await this.pack(id);
    await this.ship(id);
    return `${parcel}, paid ${payment.data.cents}`;
  }
}

@Module({ providers: [Warehouse, OrdersService], exports: [OrdersService] })
export class OrdersModule {}
