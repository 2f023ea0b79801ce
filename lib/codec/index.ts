/** `perdure/codec`: codecs that encrypt and compress what is stored. The public names, nothing else. */
// For the declarations: a compiler that includes no package's types by itself finds Node's.
/// <reference types="node" preserve="true" />
export type { Codec, CodecContext, CodecPlace, Encoded } from "../core/stored-place.ts";
export { type CompressionOptions, type CompressMethod, compression } from "./compression.ts";
export { type EncryptionKey, type EncryptionOptions, encryption } from "./encryption.ts";
