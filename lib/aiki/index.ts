/** `perdure/aiki`: the names and call shapes of Aiki over the public core. The public names, nothing else. */
export {};
