/** The public names, nothing else. */

export const ok = 1;
