/**
 * The shop on NestJS. `enableShutdownHooks` turns SIGTERM into the hooks of the modules: the server closes while the engine hands its
 * runs over (perdure.module.ts). Compiled with `experimentalDecorators` and `emitDecoratorMetadata`, as Nest needs it: see tsconfig.json.
 */
import "reflect-metadata";
import { Module } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { OrdersController } from "./orders.controller.ts";
import { OrdersModule, OrdersService } from "./orders.service.ts";
import { PerdureModule } from "./perdure.module.ts";

@Module({
  imports: [OrdersModule, PerdureModule.forRoot({ imports: [OrdersModule], services: [OrdersService] })],
  controllers: [OrdersController],
})
class AppModule {}

const app = await NestFactory.create(AppModule, { logger: ["warn", "error"] });
app.enableShutdownHooks(["SIGTERM", "SIGINT"], { useProcessExit: true });
await app.listen(process.env.PORT ?? 3000, "127.0.0.1");
console.log(`listening on ${await app.getUrl()}`);
