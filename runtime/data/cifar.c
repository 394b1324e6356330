/* cifar.c: CIFAR-10's binary version: data_batch_1.bin to data_batch_5.bin and test_batch.bin, each a row of records of one label
 * byte and 3*32*32 pixel bytes, channel by channel. */
#define _GNU_SOURCE
#include "../runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIXELS = 3 * 32 * 32, RECORD = PIXELS + 1 };

static tt_status add_file(const char *path, rt_images *r, tt_error *err) {
  rt_file f;
  tt_status status = rt_map_file(path, &f, err);
  if (status != TT_OK) return status;
  int64_t n = (int64_t)(f.bytes / RECORD);
  if (n == 0 || f.bytes % RECORD) status = tt_fail(err, TT_FORMAT, "error: expected records of %d bytes, the last one has %zu\n  at %s, byte %lld\n  fix: the file is cut or damaged; get it again", RECORD, f.bytes % RECORD, path, (long long)n * RECORD);
  uint8_t *pixels = status == TT_OK ? realloc(r->pixels, (size_t)(r->n + n) * PIXELS) : NULL;
  if (pixels) r->pixels = pixels;
  uint8_t *labels = pixels ? realloc(r->labels, (size_t)(r->n + n)) : NULL;
  if (labels) r->labels = labels;
  if (status == TT_OK && !labels) status = tt_fail(err, TT_NO_MEMORY, "error: no memory for %lld images\n  at %s\n  fix: use a machine with more memory", (long long)(r->n + n), path);
  for (int64_t i = 0; status == TT_OK && i < n; i++) {
    const uint8_t *record = f.data + i * RECORD;
    if (record[0] > 9) status = tt_fail(err, TT_FORMAT, "error: expected a label 0..9, not %d\n  at %s, byte %lld\n  fix: the file is damaged; get it again", record[0], path, (long long)i * RECORD);
    r->labels[r->n + i] = record[0];
    memcpy(r->pixels + (r->n + i) * PIXELS, record + 1, PIXELS);
  }
  r->n += n;
  rt_unmap_file(&f);
  return status;
}

tt_status rt_cifar10_images(const char *dir, bool train, rt_images *images, tt_error *err) {
  char path[RT_PATH], name[60];
  rt_images r = {.channels = 3, .height = 32, .width = 32};
  tt_status status = rt_path(path, dir, "cifar-10-batches-bin", err);
  *images = (rt_images){0};
  const char *within = status == TT_OK && access(path, F_OK) == 0 ? "cifar-10-batches-bin/" : "";
  for (int i = 1; status == TT_OK && i <= (train ? 5 : 1); i++) {
    if (train) snprintf(name, sizeof name, "%sdata_batch_%d.bin", within, i);
    else snprintf(name, sizeof name, "%stest_batch.bin", within);
    if ((status = rt_path(path, dir, name, err)) == TT_OK) status = add_file(path, &r, err);
  }
  if (status == TT_OK) *images = r;
  else {
    free(r.pixels);
    free(r.labels);
  }
  return status;
}
