/** `perdure/codec`: codecs that encrypt and compress what is stored. The public names, nothing else. */
export {};
