/* libFuzzer: any bytes as a .safetensors file. What opens is read whole: every tensor is as large as its shape says.
 *   clang-19 -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/safetensors_fuzz.c ir/types.c runtime/{safetensors,tensor,memory,files}.c -ljansson */
#include <stdlib.h>
#include <string.h>

#include "../../runtime/runtime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* Half of the inputs are a header alone: the length before it is made to fit, which mutation seldom hits. */
  uint8_t *file = malloc(size + 8);
  uint64_t header = size, bytes = size;
  if (!file) return 0;
  if (size && data[0] == '{') {
    while (header && data[header - 1] != '}') header--;
    memcpy(file, &header, 8);
    memcpy(file + 8, data, size);
    bytes += 8;
  } else if (size) memcpy(file, data, size);
  tt_error err = {0};
  tt_safetensors *f = tt_safetensors_open_memory(file, bytes, "fuzz", &err);
  if (!f != (err.status != TT_OK)) abort();
  for (int i = 0; f && i < tt_safetensors_count(f); i++) {
    tt_tensor *x = tt_safetensors_get(f, tt_safetensors_name(f, i), &err);
    if (!x) abort();
    tt_shape s = tt_tensor_shape(x);
    const uint8_t *p = tt_tensor_data(x);
    volatile uint8_t all = 0;
    for (size_t k = 0; k < (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(x)); k++) all ^= p[k];
    tt_tensor_free(x);
  }
  if (f) tt_safetensors_metadata(f, "format");
  tt_safetensors_close(f);
  free(file);
  return 0;
}
