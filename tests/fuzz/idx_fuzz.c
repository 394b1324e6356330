/* libFuzzer: any bytes as an idx file, raw or gzip. The first byte chooses the rank and whether the rest is zipped first.
 *   clang-19 -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/idx_fuzz.c ir/types.c runtime/data/idx.c runtime/files.c -lz */
#include <stdlib.h>
#include <zlib.h>

#include "../../runtime/runtime.h"

static void read_one(const uint8_t *file, size_t bytes, int rank) {
  tt_error err = {0};
  uint8_t *data;
  int64_t dims[TT_MAX_RANK], n = 1;
  tt_status status = rt_idx_parse("fuzz", file, bytes, rank, &data, dims, &err);
  if (status != err.status || (status == TT_OK) != (data != NULL)) abort();
  if (!data) return;
  volatile uint8_t all = 0;
  for (int i = 0; i < rank; i++) n *= dims[i];
  for (int64_t i = 0; i < n; i++) all ^= data[i];
  free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  int rank = data[0] & 2 ? 3 : 1;
  if (!(data[0] & 1)) return read_one(data + 1, size - 1, rank), 0;
  z_stream z = {0};
  uint8_t *zipped = malloc(size + 1000);
  if (zipped && deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK) {
    z.next_in = (Bytef *)data + 1, z.avail_in = (uInt)size - 1;
    z.next_out = zipped, z.avail_out = (uInt)size + 1000;
    deflate(&z, Z_FINISH);
    read_one(zipped, size + 1000 - z.avail_out, rank);
    deflateEnd(&z);
  }
  free(zipped);
  return 0;
}
