/** What a batch brought about for others. */
export interface News {
  /** Runs that became claimable. */
  work: number;
  /** Of these, those that this process may not serve, and that others were not hinted at. */
  foreign: number;
  /** Of these, those that others were hinted at where it is theirs. */
  hintedWork: number;
  done: number;
  change: number;
  /** Of these, those that others were hinted at. */
  hintedChange: number;
  /** Milliseconds until the first run that is to be woken later; null: none. */
  laterMs: number | null;
  /** Runs have ended of which not all have been told that wait for it. */
  untold: boolean;
  /** How often something was published. */
  published: number;
  /** The keys of runs that published or ended: who reads them here looks. */
  readonly touched: Set<string>;
  /** What others were hinted at already, right behind the commit. */
  readonly hinted: string;
}
