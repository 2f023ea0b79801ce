/** Compression of large values, by what node:zlib has. */
import * as zlib from "node:zlib";
import { PerdureError } from "../core/errors.ts";
import { checkChoice, checkInteger, checkKeys } from "../core/options.ts";
import type { Codec } from "../core/stored-place.ts";

/** `zstd` needs Node 22.15 or newer, in every process that reads. */
export type CompressMethod = "brotli" | "gzip" | "deflate" | "zstd";

/** Options of `compression()`. */
export interface CompressionOptions {
  /** Values of fewer bytes are left as they are. Default 1024; below it little is gained. */
  above?: number | undefined;
  /** How to write; what any method wrote is read. */
  method?: CompressMethod | undefined;
}

interface Method {
  readonly pack: (data: Uint8Array) => Uint8Array;
  readonly unpack: (data: Uint8Array, options: { maxOutputLength: number }) => Uint8Array;
}

/** A text that is no value of ours, which are of 1 MiB at most: a row that would unpack to more is not read. */
const LARGEST = 2 * 1024 * 1024;
/** Base64 and the name of the codec cost a third: what is stored gets smaller by more than that, or is left as it is. */
const GAIN = 0.7;
const WHERE = "compression()";

const { brotliCompressSync, brotliDecompressSync, constants } = zlib;
const { zstdCompressSync, zstdDecompressSync } = zlib as unknown as Partial<Record<string, Method["unpack"]>>;

const METHODS: Readonly<Record<CompressMethod, Method | undefined>> = {
  brotli: {
    pack: (data) => brotliCompressSync(data, { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } }),
    unpack: brotliDecompressSync,
  },
  gzip: { pack: (data) => zlib.gzipSync(data), unpack: zlib.gunzipSync },
  deflate: { pack: (data) => zlib.deflateSync(data, { level: 3 }), unpack: zlib.inflateSync },
  zstd: zstdCompressSync && { pack: zstdCompressSync as Method["pack"], unpack: zstdDecompressSync! },
};

/**
 * A codec that compresses large values, where that makes them smaller. Put it before a codec that encrypts.
 *
 * @throws PERDURE_OPTION, for a method that this Node lacks too.
 * @example new Perdure({ codec: compression({ above: 4096 }) })
 */
export function compression(options: CompressionOptions = {}): Codec {
  const { above = 1024, method = "deflate" } = checkKeys(options, ["above", "method"], WHERE);
  checkInteger(above, `above of ${WHERE}`, 0, LARGEST);
  const chosen = checkChoice(method, Object.keys(METHODS) as CompressMethod[], `method of ${WHERE}`);
  const { pack } = METHODS[chosen] ?? lacks(chosen);
  return {
    name: "compress",
    encode(data) {
      if (data.length < above) return null;
      const packed = pack(data);
      return packed.length < data.length * GAIN ? { data: packed, note: chosen } : null;
    },
    decode({ data, note = "" }) {
      if (!Object.hasOwn(METHODS, note))
        throw new Error(`it is compressed by "${note}", which this version does not know`);
      const { unpack } = METHODS[note as CompressMethod] ?? lacks(note);
      return unpack(data, { maxOutputLength: LARGEST });
    },
  };
}

function lacks(method: string): never {
  const text = `method "${method}" of ${WHERE} is not in Node ${process.versions.node}; 22.15 and newer have it`;
  throw new PerdureError("PERDURE_OPTION", text);
}
