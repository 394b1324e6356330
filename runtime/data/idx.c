/* idx.c: MNIST's files. Two zero bytes, 8 for unsigned bytes, the rank, each dimension in four bytes big-endian, the bytes. They
 * come as they are or gzip'ed. The header says how many bytes follow, so exactly so many are inflated and not one more; before
 * room is made for them it is checked that the file could hold them at all (deflate shrinks by 1032 at most). */
#define _GNU_SOURCE
#include "../runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define MAX_RATIO 1032

/* The bytes of a file in order, inflated or not. */
typedef struct { const char *name; const uint8_t *data; size_t bytes, at; bool zipped, ended; z_stream z; tt_error *err; } source;

static tt_status damaged(source *s, size_t at, const char *expected) {
  return tt_fail(s->err, TT_FORMAT, "error: expected %s\n  at %s, byte %zu%s\n  fix: the file is cut or damaged; get it again", expected, s->name, at, s->zipped ? " of the inflated content" : "");
}

/* Up to n bytes; fewer at the end of the content. false: the gzip data is damaged. */
static bool take(source *s, uint8_t *to, size_t n, size_t *got) {
  *got = 0;
  if (!s->zipped) {
    *got = n < s->bytes - s->at ? n : s->bytes - s->at;
    if (*got) memcpy(to, s->data + s->at, *got);
    s->at += *got;
    return true;
  }
  while (*got < n && !s->ended) {
    size_t room = n - *got, rest = s->bytes - s->at;
    s->z.next_out = to + *got;
    s->z.avail_out = room < 1u << 30 ? (uInt)room : 1u << 30;
    s->z.next_in = (Bytef *)s->data + s->at;
    s->z.avail_in = rest < 1u << 30 ? (uInt)rest : 1u << 30;
    uInt out = s->z.avail_out, in = s->z.avail_in;
    int result = inflate(&s->z, Z_NO_FLUSH);
    *got += out - s->z.avail_out;
    s->at += in - s->z.avail_in;
    if (result == Z_STREAM_END) s->ended = true;
    else if (result != Z_OK) {
      char expected[200];
      snprintf(expected, sizeof expected, "sound gzip data: %s", result == Z_BUF_ERROR ? "it ends early" : s->z.msg ? s->z.msg : "inflate failed");
      tt_fail(s->err, TT_FORMAT, "error: expected %s\n  at %s, byte %zu\n  fix: the file is cut or damaged; get it again", expected, s->name, s->at);
      return false;
    }
  }
  return true;
}

static tt_status parse(source *s, int rank, uint8_t **data, int64_t *dims) {
  uint8_t header[4 + 4 * TT_MAX_RANK], extra;
  size_t length = 4 + 4 * (size_t)rank, got;
  char expected[200];
  if (!take(s, header, length, &got)) return TT_FORMAT;
  snprintf(expected, sizeof expected, "an idx header of %zu bytes: 0, 0, 8 (unsigned bytes), %d (dimensions) and the dimensions", length, rank);
  if (got < length || header[0] || header[1] || header[2] != 8 || header[3] != rank) return damaged(s, got < length ? got : 0, expected);
  uint64_t n = 1;
  bool over = false;
  for (int i = 0; i < rank; i++) {
    const uint8_t *d = header + 4 + 4 * i;
    dims[i] = (int64_t)((uint32_t)d[0] << 24 | (uint32_t)d[1] << 16 | (uint32_t)d[2] << 8 | d[3]);
    over |= __builtin_mul_overflow(n, (uint64_t)dims[i], &n);
  }
  uint64_t most = s->zipped ? (uint64_t)s->bytes * MAX_RATIO : s->bytes - s->at;
  snprintf(expected, sizeof expected, "%llu bytes after the header, for the dimensions it says; the file cannot hold more than %llu", (unsigned long long)n, (unsigned long long)most);
  if (over || n > most) return damaged(s, length, expected);
  uint8_t *room = malloc(n + 1);
  if (!room) return tt_fail(s->err, TT_NO_MEMORY, "error: no memory for %llu bytes of data\n  at %s\n  fix: use a machine with more memory", (unsigned long long)n, s->name);
  size_t more = 0;
  bool ok = take(s, room, n, &got) && (got < n || take(s, &extra, 1, &more));
  if (ok && got == n && more == 0) {
    *data = room;
    return TT_OK;
  }
  free(room);
  snprintf(expected, sizeof expected, "%llu bytes after the header, the end after them", (unsigned long long)n);
  return ok ? damaged(s, length + got, expected) : TT_FORMAT;
}

tt_status rt_idx_parse(const char *name, const uint8_t *file, size_t bytes, int rank, uint8_t **data, int64_t *dims, tt_error *err) {
  source s = {.name = name, .data = file, .bytes = bytes, .zipped = bytes >= 2 && file[0] == 0x1f && file[1] == 0x8b, .err = err};
  *data = NULL;
  if (s.zipped && inflateInit2(&s.z, 15 + 16) != Z_OK) return tt_fail(err, TT_NO_MEMORY, "error: no memory to inflate\n  at %s\n  fix: use a machine with more memory", name);
  tt_status status = parse(&s, rank, data, dims);
  if (s.zipped) inflateEnd(&s.z);
  return status;
}

static tt_status read_file(const char *dir, const char *part, const char *kind, int rank, char path[RT_PATH], uint8_t **data, int64_t *dims, tt_error *err) {
  static const char *const forms[] = {"%s-%s-idx%d-ubyte", "%s-%s-idx%d-ubyte.gz", "%s-%s.idx%d-ubyte", "%s-%s.idx%d-ubyte.gz"};
  int i = 0;
  for (; i < 4; i++) {
    char name[60];
    snprintf(name, sizeof name, forms[i], part, kind, rank);
    if (rt_path(path, dir, name, err) != TT_OK) return TT_INVALID;
    if (access(path, F_OK) == 0) break;
  }
  if (i == 4) return tt_fail(err, TT_IO, "error: %s-%s-idx%d-ubyte is not there, nor with .gz\n  at %s\n  fix: give the folder with the four idx files", part, kind, rank, dir);
  rt_file f;
  tt_status status = rt_map_file(path, &f, err);
  if (status == TT_OK) status = rt_idx_parse(path, f.data, f.bytes, rank, data, dims, err);
  rt_unmap_file(&f);
  return status;
}

tt_status rt_idx_images(const char *dir, bool train, rt_images *images, tt_error *err) {
  const char *part = train ? "train" : "t10k";
  char path[RT_PATH];
  int64_t of_images[3], of_labels[1];
  *images = (rt_images){0};
  rt_images r = {.channels = 1};
  tt_status status = read_file(dir, part, "images", 3, path, &r.pixels, of_images, err);
  if (status == TT_OK && (of_images[0] < 1 || of_images[1] < 1 || of_images[2] < 1))
    status = tt_fail(err, TT_FORMAT, "error: expected at least one image of at least one pixel, not %lld of %lld x %lld\n  at %s, byte 4\n  fix: get the file again", (long long)of_images[0], (long long)of_images[1], (long long)of_images[2], path);
  if (status == TT_OK) status = read_file(dir, part, "labels", 1, path, &r.labels, of_labels, err);
  if (status == TT_OK && of_labels[0] != of_images[0])
    status = tt_fail(err, TT_FORMAT, "error: expected %lld labels, one for each image, not %lld\n  at %s, byte 4\n  fix: take images and labels of one data set", (long long)of_images[0], (long long)of_labels[0], path);
  for (int64_t i = 0; status == TT_OK && i < of_labels[0]; i++)
    if (r.labels[i] > 9) status = tt_fail(err, TT_FORMAT, "error: expected a label 0..9, not %d\n  at %s, byte %lld of the content\n  fix: the file is damaged; get it again", r.labels[i], path, (long long)i + 8);
  if (status != TT_OK) {
    free(r.pixels);
    free(r.labels);
    return status;
  }
  r.n = of_images[0], r.height = of_images[1], r.width = of_images[2];
  *images = r;
  return TT_OK;
}
