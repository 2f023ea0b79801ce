/** The key under which options carry what `perdure/testing` puts into an engine: no option has such a name, and no other package knows it. */
export const SEAM: unique symbol = Symbol("perdure.seam");
