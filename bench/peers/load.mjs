/** Loads a peer from the packages of this folder: a module is looked for from the file that asks for it. */
export const load = (name) => import(name);
