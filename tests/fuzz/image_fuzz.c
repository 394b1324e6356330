/* libFuzzer: any bytes as a file of the kernel cache. What passes lies inside of the file.
 *   clang-19 -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/image_fuzz.c runtime/image.c ir/types.c */
#include <stdlib.h>
#include <string.h>

#include "../../runtime/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  rt_image image;
  char about[RT_IMAGE_ABOUT];
  const char *why = rt_image_parse(data, size, NULL, &image, about);
  if (!why && ((const uint8_t *)image.data < data || image.bytes > size - (size_t)((const uint8_t *)image.data - data) || image.entry >= image.bytes)) abort();
  if (why && image.data) abort();
  /* The checksum is seldom guessed: the same bytes once more, with a head that is right but for one field. */
  if (size < 16) return 0;
  uint8_t *file = malloc(RT_IMAGE_HEAD + size);
  rt_key key = rt_key_of(data, size);
  size_t entry;
  memcpy(&entry, data, sizeof entry);
  rt_image one = {(void *)data, size, entry};
  rt_image_head(&one, &key, "fuzz", file);
  memcpy(file + RT_IMAGE_HEAD, data, size);
  if (!rt_image_parse(file, RT_IMAGE_HEAD + size, &key, &image, about) != (entry < size)) abort();
  file[data[0] % RT_IMAGE_HEAD] ^= (uint8_t)(data[1] | 1);
  if (!rt_image_parse(file, RT_IMAGE_HEAD + size, &key, &image, about)) abort();
  free(file);
  return 0;
}
