/** `perdure/codec`: codecs that encrypt and compress what is stored. The public names, nothing else. */
// For the declarations: a compiler that includes no package's types by itself finds Node's.
/// <reference types="node" preserve="true" />
export type { Codec, CodecContext, CodecPlace, Encoded } from "../core/stored-place.ts";
export { type CompressMethod, type CompressOptions, compress } from "./compress.ts";
export { type EncryptionKey, type EncryptOptions, encrypt } from "./encrypt.ts";
