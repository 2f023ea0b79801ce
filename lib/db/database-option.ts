/** What the option `database` may be. Free of the driver's types, so that applications need none. */

export type DatabaseOption = string | DatabaseConfig | DatabasePool;

/** The driver's own settings; those not listed here are passed on as they are. */
export interface DatabaseConfig {
  readonly connectionString?: string | undefined;
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly database?: string | undefined;
  readonly user?: string | undefined;
  readonly password?: string | (() => string | Promise<string>) | undefined;
  readonly ssl?: boolean | object | undefined;
  /** Connections at most. Default 10. */
  readonly max?: number | undefined;
  /** How long to wait for a connection, in milliseconds. Default 5000. */
  readonly connectionTimeoutMillis?: number | undefined;
}

/** A pool of the `pg` package that the application owns, and ends. */
export interface DatabasePool {
  connect(): Promise<any>;
  query(...args: any[]): any;
  end(): Promise<void>;
  readonly totalCount: number;
}
