/**
 * Perdure as a Nest module. The container makes the services, with what they need, and this module gives those with workflows to the engine.
 * It launches when every module is there, and shuts down while the server closes: a slow client does not hold up the runs. The program
 * ends once both have.
 */
import {
  type BeforeApplicationShutdown,
  type DynamicModule,
  Module,
  type ModuleMetadata,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type Type,
} from "@nestjs/common";
import { HttpAdapterHost } from "@nestjs/core";
import { Perdure, type PerdureOptions } from "perdure";
import { closeConnections, handOver } from "../shop.ts";

export interface PerdureModuleOptions extends Omit<PerdureOptions, "workflows"> {
  /** Modules that export the services. */
  readonly imports: NonNullable<ModuleMetadata["imports"]>;
  /** Services with methods that are `@workflow()`. */
  readonly services: readonly Type<object>[];
}

@Module({})
export class PerdureModule implements OnApplicationBootstrap, BeforeApplicationShutdown, OnApplicationShutdown {
  constructor(
    private readonly perdure: Perdure,
    private readonly host: HttpAdapterHost,
  ) {}

  static forRoot({ imports, services, ...options }: PerdureModuleOptions): DynamicModule {
    const engine = {
      provide: Perdure,
      inject: [...services],
      useFactory: (...instances: object[]) => new Perdure({ ...options, workflows: instances }),
    };
    return { module: PerdureModule, global: true, imports, providers: [engine], exports: [Perdure] };
  }

  onApplicationBootstrap(): Promise<void> {
    return this.perdure.launch();
  }

  beforeApplicationShutdown(): void {
    closeConnections(this.host.httpAdapter.getHttpServer());
    void handOver(this.perdure);
  }

  onApplicationShutdown(): Promise<void> {
    return this.perdure.shutdown();
  }
}
