/** How much of everything: such that each figure takes seconds, and all of them ten minutes; tiny to see that it works. */

export interface Sizes {
  readonly rounds: number;
  /** How long a drain should take, in seconds; how many runs tell how many that are; never more than so many. */
  readonly seconds: number;
  readonly sample: number;
  readonly most: number;
  /** How long a latency is measured in one round, in ms, and how often at most. */
  readonly budget: number;
  readonly times: number;
  readonly events: number;
  readonly sleepers: number;
  /** Seconds: until an idle process has settled, and how long it is watched. */
  readonly settle: number;
  readonly watch: number;
  /** How often Perdure is killed; how long another process may take to go on, in ms. */
  readonly kills: number;
  readonly patience: number;
  readonly waiters: number;
  /** So long after they said that they wait, all of them wait in the database too, in ms. */
  readonly parked: number;
  /** What has gathered in the tables. */
  readonly finished: number;
  readonly backlog: number;
}

export const FULL: Sizes = {
  rounds: 3,
  seconds: 5,
  sample: 200,
  most: 120_000,
  budget: 1000,
  times: 100,
  events: 20,
  sleepers: 50,
  settle: 6,
  watch: 12,
  kills: 5,
  patience: 60_000,
  waiters: 10_000,
  parked: 2000,
  finished: 1_000_000,
  backlog: 200_000,
};

export const TINY: Sizes = {
  rounds: 1,
  seconds: 0.05,
  sample: 20,
  most: 20,
  budget: 100,
  times: 3,
  events: 2,
  sleepers: 2,
  settle: 0.5,
  watch: 0.5,
  kills: 1,
  patience: 20_000,
  waiters: 20,
  parked: 300,
  finished: 200,
  backlog: 200,
};
