/** What the option `database` may be. Free of the driver's types, so that applications need none. */

export type DatabaseOption = string | DatabaseConfig | DatabasePool;

/** The driver's own settings; those not listed here are passed on as they are. */
export interface DatabaseConfig {
  /** `postgres://user:password@host:port/database`; what it says goes before the other fields. */
  readonly connectionString?: string | undefined;
  /** A name, an address, or the folder of a socket. Default `PGHOST`, else localhost. */
  readonly host?: string | undefined;
  /** Default `PGPORT`, else 5432. */
  readonly port?: number | undefined;
  /** Default `PGDATABASE`, else the user's name. */
  readonly database?: string | undefined;
  /** Default `PGUSER`, else the user of the process. */
  readonly user?: string | undefined;
  /** Or a function that gives one for each connection. Default `PGPASSWORD`, else none. */
  readonly password?: string | (() => string | Promise<string>) | undefined;
  /** TLS: `true`, or the options of Node's `tls.connect`. Default: none. */
  readonly ssl?: boolean | object | undefined;
  /** Connections at most. Default 10. */
  readonly max?: number | undefined;
  /** How long to wait for a connection, in milliseconds. Default 5000. */
  readonly connectionTimeoutMillis?: number | undefined;
}

/** A pool of the `pg` package that the application owns, and ends. */
export interface DatabasePool {
  /** Lends a client. */
  connect(): Promise<any>;
  /** Runs a statement on any client. */
  query(...args: any[]): any;
  /** Closes every client: the application does, after `shutdown()`. */
  end(): Promise<void>;
  /** How many clients there are. */
  readonly totalCount: number;
}
