/* Data sets from files made here, damaged ones too, the drawn shapes, and the loader: what a batch holds, whatever the threads. */
#define _GNU_SOURCE
#include "files.h"

#include <math.h>
#include <zlib.h>

#include "runtime/runtime.h"

/* The four idx files of n images h x w; pixels count up. */
static void put_idx(folder *f, const char *part, int n, int h, int w, bool zipped) {
  static uint8_t room[100000];
  char name[100];
  for (int kind = 0; kind < 2; kind++) {
    uint8_t head[16] = {0, 0, 8, kind ? 1 : 3, 0, 0, (uint8_t)(n >> 8), (uint8_t)n, 0, 0, 0, (uint8_t)h, 0, 0, 0, (uint8_t)w};
    size_t start = kind ? 8 : 16, size = kind ? (size_t)n : (size_t)(n * h * w);
    memcpy(room, head, start);
    for (size_t i = 0; i < size; i++) room[start + i] = (uint8_t)(kind ? i % 10 : i % 251);
    snprintf(name, sizeof name, "%s-%s-idx%d-ubyte%s", part, kind ? "labels" : "images", kind ? 1 : 3, zipped ? ".gz" : "");
    if (zipped) {
      gzFile z = gzopen(in(f, name), "wb");
      gzwrite(z, room, (unsigned)(start + size));
      gzclose(z);
    } else put(in(f, name), room, start + size);
  }
}

static tt_dataset *open_in(folder *f, const char *kind, bool train, tt_error *err) {
  char what[300];
  snprintf(what, sizeof what, "%s:%s", kind, f->dir);
  return tt_dataset_open(what, train, err);
}

Test(data, idx_raw_and_zipped) {
  for (int zipped = 0; zipped < 2; zipped++) {
    folder f = folder_new();
    put_idx(&f, "train", 300, 5, 4, zipped);
    put_idx(&f, "t10k", 30, 5, 4, zipped);
    tt_error err = {0};
    tt_dataset *train = open_in(&f, "mnist", true, &err), *test = open_in(&f, "fashion-mnist", false, &err);
    cr_assert(train && test, "%s", err.message);
    cr_assert(train->n == 300 && test->n == 30 && train->channels == 1 && train->height == 5 && train->width == 4 && train->n_classes == 10);
    double sum = 0, squares = 0;
    for (int i = 0; i < 6000; i++) {
      cr_assert_eq(train->pixels[i], i % 251);
      sum += i % 251 / 255.0;
      squares += i % 251 / 255.0 * (i % 251 / 255.0);
    }
    cr_assert_eq(test->labels[13], 3);
    cr_assert_float_eq((double)train->mean[0], sum / 6000, 1e-6);
    cr_assert_float_eq((double)train->std[0], sqrt(squares / 6000 - sum / 6000 * (sum / 6000)), 1e-6);
    cr_assert_eq(test->mean[0], train->mean[0]);                             /* of the training part */
    cr_assert_eq(test->std[0], train->std[0]);
    tt_dataset_free(train);
    tt_dataset_free(test);
    folder_remove(&f);
  }
}

Test(data, idx_damaged) {
  static const struct { const uint8_t bytes[20]; size_t n; int rank; const char *says; } files[] = {
    {{0, 0, 8, 1, 0, 0, 0, 2, 5, 6}, 9, 1, "2 bytes after the header"}, {{0, 0, 8, 1, 0, 0, 0, 2, 5, 6, 7}, 11, 1, "2 bytes after the header"}, {{0, 0, 8, 3, 0, 0, 0, 2}, 8, 1, "0, 0, 8"},
    {{0, 0, 9, 1, 0, 0, 0, 0}, 8, 1, "0, 0, 8"}, {{0, 0, 8, 1, 0, 0}, 6, 1, "an idx header"}, {{0}, 0, 1, "an idx header"},
    {{0, 0, 8, 1, 255, 255, 255, 255}, 8, 1, "4294967295 bytes"}, {{0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}, 16, 3, "bytes after the header"},
    {{0x1f, 0x8b, 8, 0}, 4, 1, "gzip"}, {{0x1f, 0x8b, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7}, 11, 1, "gzip"},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    tt_error err = {0};
    uint8_t *data;
    int64_t dims[3];
    cr_assert_eq(rt_idx_parse("some-idx", files[i].bytes, files[i].n, files[i].rank, &data, dims, &err), TT_FORMAT, "%zu", i);
    cr_assert_null(data);
    cr_assert(strstr(err.message, files[i].says) && strstr(err.message, "at some-idx, byte"), "%zu: %s", i, err.message);
  }
}

/* A small file that inflates to far more than its header says, and one cut at every byte. */
Test(data, idx_zipped_damaged) {
  folder f = folder_new();
  static uint8_t room[2000000], file[20000];
  room[2] = 8, room[3] = 1, room[7] = 100;
  gzFile z = gzopen(in(&f, "a.gz"), "wb9");
  gzwrite(z, room, sizeof room);
  gzclose(z);
  tt_error err = {0};
  uint8_t *data;
  int64_t dims[1];
  size_t n = get(f.path, file, sizeof file);
  cr_assert_eq(rt_idx_parse("a.gz", file, n, 1, &data, dims, &err), TT_FORMAT);
  cr_assert_not_null(strstr(err.message, "the end after them"), "%s", err.message);
  z = gzopen(f.path, "wb9");
  gzwrite(z, room, 108);
  gzclose(z);
  n = get(f.path, file, sizeof file);
  cr_assert_eq(rt_idx_parse("a.gz", file, n, 1, &data, dims, NULL), TT_OK);
  cr_assert_eq(dims[0], 100);
  free(data);
  for (size_t i = 0; i < n; i++) {
    cr_assert_eq(rt_idx_parse("a.gz", file, i, 1, &data, dims, NULL), TT_FORMAT, "cut at %zu of %zu", i, n);
    file[i] ^= 0x10;
    if (rt_idx_parse("a.gz", file, n, 1, &data, dims, NULL) == TT_OK) free(data);      /* time and name in the header matter to nobody */
    file[i] ^= 0x10;
  }
  file[n - 6] ^= 1;                                                          /* the checksum */
  cr_assert_eq(rt_idx_parse("a.gz", file, n, 1, &data, dims, NULL), TT_FORMAT);
  folder_remove(&f);
}

Test(data, idx_parts_that_do_not_fit) {
  folder f = folder_new();
  put_idx(&f, "train", 30, 4, 4, false);
  put_idx(&f, "t10k", 20, 4, 4, false);
  tt_error err = {0};
  uint8_t labels[8 + 20] = {0, 0, 8, 1, 0, 0, 0, 20, 1, 2, 10};
  put(in(&f, "t10k-labels-idx1-ubyte"), labels, sizeof labels);
  cr_assert_null(open_in(&f, "mnist", false, &err));
  cr_assert_not_null(strstr(err.message, "a label 0..9, not 10"), "%s", err.message);
  cr_assert_not_null(strstr(err.message, "byte 10"), "%s", err.message);
  labels[7] = 19;
  put(f.path, labels, sizeof labels - 1);
  err = (tt_error){0};
  cr_assert_null(open_in(&f, "mnist", false, &err));
  cr_assert_not_null(strstr(err.message, "20 labels, one for each image, not 19"), "%s", err.message);
  unlink(in(&f, "train-images-idx3-ubyte"));
  err = (tt_error){0};
  cr_assert_null(open_in(&f, "mnist", true, &err));
  cr_assert(err.status == TT_IO && strstr(err.message, "train-images-idx3-ubyte is not there"), "%s", err.message);
  folder_remove(&f);
}

Test(data, cifar10) {
  folder f = folder_new();
  static uint8_t records[5 * 3073];
  for (int i = 0; i < 5; i++) {
    records[i * 3073] = (uint8_t)(i + 2);
    for (int k = 1; k < 3073; k++) records[i * 3073 + k] = (uint8_t)(40 * i + (k - 1) / 1024);
  }
  cr_assert_eq(mkdir(in(&f, "cifar-10-batches-bin"), 0777), 0);
  for (int b = 1; b <= 5; b++) {
    char name[100];
    snprintf(name, sizeof name, "cifar-10-batches-bin/data_batch_%d.bin", b);
    put(in(&f, name), records, (size_t)b * 3073);
  }
  put(in(&f, "cifar-10-batches-bin/test_batch.bin"), records, 2 * 3073);
  tt_error err = {0};
  tt_dataset *d = open_in(&f, "cifar10", true, &err), *t = open_in(&f, "cifar10", false, &err);
  cr_assert(d && t && d->n == 15 && t->n == 2, "%s", err.message);
  cr_assert_eq(d->labels[2], 3);                                             /* record 1 of the second file */
  cr_assert_eq(d->pixels[2 * 3072 + 2048], 42);
  cr_assert_eq(t->mean[2], d->mean[2]);
  tt_dataset_free(d);
  tt_dataset_free(t);
  put(in(&f, "cifar-10-batches-bin/data_batch_3.bin"), records, 2 * 3073 - 1);
  cr_assert_null(open_in(&f, "cifar10", true, &err));
  cr_assert(strstr(err.message, "data_batch_3.bin, byte 3073") && err.status == TT_FORMAT, "%s", err.message);
  records[3073] = 11;
  put(f.path, records, 2 * 3073);
  err = (tt_error){0};
  cr_assert_null(open_in(&f, "cifar10", true, &err));
  cr_assert_not_null(strstr(err.message, "not 11"), "%s", err.message);
  unlink(f.path);
  err = (tt_error){0};
  cr_assert_null(open_in(&f, "cifar10", true, &err));
  cr_assert_eq(err.status, TT_IO);
  folder_remove(&f);
}

Test(data, names) {
  const char *bad[] = {"cifar10", "cifar10:", "imagenet:/x", "shapes:0", "shapes:many", "shapes:-5", "", "shapes:99999999999999999999"};
  for (int i = 0; i < 8; i++) {
    tt_error err = {0};
    cr_assert_null(tt_dataset_open(bad[i], true, &err));
    cr_assert_eq(err.status, TT_INVALID, "%s", bad[i]);
  }
}

Test(data, shapes) {
  tt_dataset *a = tt_dataset_open("shapes:100", true, NULL), *b = tt_dataset_open("shapes:50", true, NULL), *t = tt_dataset_open("shapes:100", false, NULL);
  cr_assert(a->n == 100 && t->n == 20 && a->n_classes == 10 && a->channels == 3 && a->width == 32);
  cr_assert_eq(memcmp(a->pixels, b->pixels, 50 * 3072), 0);                  /* an image does not depend on how many there are */
  for (int i = 0; i < 20; i++)
    for (int k = 0; k < 100; k++) cr_assert_neq(memcmp(t->pixels + i * 3072, a->pixels + k * 3072, 3072), 0);
  cr_assert(a->mean[0] > 0.1f && a->mean[0] < 0.9f && a->std[0] > 0.05f);
  cr_assert_eq(a->mean[1], t->mean[1]);
  tt_dataset_free(a);
  tt_dataset_free(b);
  tt_dataset_free(t);
}

static uint64_t hash_batch(const tt_batch *b) {
  uint64_t h = 14695981039346656037u;
  tt_shape s[2] = {tt_tensor_shape(b->x), tt_tensor_shape(b->y)};
  for (int which = 0; which < 2; which++) {
    const uint8_t *p = tt_tensor_data(which ? b->y : b->x);
    for (int64_t i = 0; i < tt_shape_count(&s[which]) * 4; i++) h = (h ^ p[i]) * 1099511628211u;
  }
  return h;
}

Test(loader, same_batches_on_any_threads_and_after_seeks, .timeout = 60) {
  enum { EPOCHS = 3, BATCHES = 7 };
  tt_dataset *d = tt_dataset_open("shapes:103", true, NULL);
  tt_loader_options o = {.batch = 16, .shuffle = true, .augment = {.flip = true, .crop = 4}, .seed = 5};
  uint64_t want[EPOCHS * BATCHES];
  tt_batch b;
  for (int threads = 1; threads <= 4; threads++) {
    o.n_threads = threads;
    tt_loader *l = tt_loader_new(d, &o, NULL);
    cr_assert_eq(tt_loader_batches(l), BATCHES);
    for (int i = 0; i < EPOCHS * BATCHES; i++) {
      cr_assert_eq(tt_loader_next(l, &b, NULL), TT_OK);
      cr_assert(b.epoch == i / BATCHES && b.index == i % BATCHES && b.count == (i % BATCHES == 6 ? 7 : 16));
      if (threads == 1) want[i] = hash_batch(&b);
      cr_assert_eq(hash_batch(&b), want[i], "batch %d, %d threads", i, threads);
    }
    for (int i = 0; i < 60; i++) {                                           /* also seeks right after another, and before anything was taken */
      int to = (int)(tt_random_word(9, 0, 0, (uint64_t)i) % (EPOCHS * BATCHES - 2));
      tt_loader_seek(l, to / BATCHES, to % BATCHES);
      for (int k = 0; k < i % 3; k++) {
        tt_loader_next(l, &b, NULL);
        cr_assert_eq(hash_batch(&b), want[to + k]);
      }
    }
    tt_loader_free(l);
  }
  for (int i = 0; i < EPOCHS * BATCHES; i++)
    for (int k = 0; k < i; k++) cr_assert_neq(want[i], want[k]);
  o.seed = 6;
  tt_loader *l = tt_loader_new(d, &o, NULL);
  tt_loader_next(l, &b, NULL);
  cr_assert_neq(hash_batch(&b), want[0]);
  tt_loader_free(l);
  tt_dataset_free(d);
}

/* An epoch holds each sample once: images that are their own number. */
Test(loader, shuffling_is_a_permutation, .timeout = 60) {
  for (int64_t n = 1; n <= 300; n = n * 2 + 1) {
    uint8_t *pixels = malloc((size_t)n * 2), *labels = calloc((size_t)n, 1);
    for (int64_t i = 0; i < n; i++) pixels[2 * i] = (uint8_t)(i & 255), pixels[2 * i + 1] = (uint8_t)(i >> 8);
    tt_dataset d = {"own", n, 1, 1, 2, 10, pixels, labels, {0}, {1, 1, 1, 1}};
    tt_loader *l = tt_loader_new(&d, &(tt_loader_options){.batch = 8, .shuffle = true, .flatten = true, .seed = 1}, NULL);
    int64_t moved = 0;
    for (int epoch = 0; epoch < 2; epoch++) {
      int *seen = calloc((size_t)n, sizeof *seen);
      for (int64_t i = 0; i < tt_loader_batches(l); i++) {
        tt_batch b;
        tt_loader_next(l, &b, NULL);
        cr_assert_eq(tt_tensor_shape(b.x).rank, 2);
        for (int64_t k = 0; k < b.count; k++) {
          const float *x = (float *)tt_tensor_data(b.x) + 2 * k;
          int64_t sample = lrintf(x[0] * 255) + 256 * lrintf(x[1] * 255);
          seen[sample]++;
          moved += sample != i * 8 + k;
        }
      }
      for (int64_t i = 0; i < n; i++) cr_assert_eq(seen[i], 1, "sample %lld of %lld in epoch %d", (long long)i, (long long)n, epoch);
      free(seen);
    }
    cr_assert(n < 8 || moved > n);
    tt_loader_free(l);
    free(pixels);
    free(labels);
  }
}

Test(loader, normalizes_flips_and_crops, .timeout = 60) {
  uint8_t pixels[20], labels[1] = {7};
  for (int i = 0; i < 20; i++) pixels[i] = (uint8_t)(10 + i);                /* 1x4x5 */
  tt_dataset d = {"own", 1, 1, 4, 5, 10, pixels, labels, {0.5f}, {0.25f}};
  tt_loader *l = tt_loader_new(&d, &(tt_loader_options){.batch = 1}, NULL);
  tt_batch b;
  tt_loader_next(l, &b, NULL);
  for (int i = 0; i < 20; i++) cr_assert_float_eq((double)((float *)tt_tensor_data(b.x))[i], ((10 + i) / 255.0 - 0.5) / 0.25, 1e-6);
  cr_assert_eq(((int32_t *)tt_tensor_data(b.y))[0], 7);
  tt_loader_free(l);
  /* Each augmented picture is one of the 2 * 9 that are possible, and all of them come. */
  l = tt_loader_new(&d, &(tt_loader_options){.batch = 50, .augment = {.flip = true, .crop = 1}, .seed = 3}, NULL);
  bool came[2][3][3] = {0};
  for (int e = 0; e < 8; e++) {
    tt_loader_next(l, &b, NULL);
    cr_assert_eq(b.count, 1);
    for (int i = 0; i < 50; i++) {
      int matches = 0;
      for (int flip = 0; flip < 2; flip++)
        for (int dy = -1; dy <= 1; dy++)
          for (int dx = -1; dx <= 1; dx++) {
            bool equal = true;
            for (int y = 0; y < 4; y++)
              for (int x = 0; x < 5; x++) {
                int from_y = y + dy, from_x = (flip ? 4 - x : x) + dx;
                double v = from_y < 0 || from_y > 3 || from_x < 0 || from_x > 4 ? 0 : pixels[from_y * 5 + from_x];
                equal &= fabs((double)((float *)tt_tensor_data(b.x))[i * 20 + y * 5 + x] - (v / 255 - 0.5) / 0.25) < 1e-5;
              }
            if (equal) matches++, came[flip][dy + 1][dx + 1] = true;
          }
      cr_assert_eq(matches, 1);
    }
  }
  for (int i = 0; i < 18; i++) cr_assert((&came[0][0][0])[i], "%d", i);
  tt_loader_free(l);
}

Test(loader, options_are_checked_and_free_never_hangs, .timeout = 60) {
  tt_dataset *d = tt_dataset_open("shapes:20", true, NULL);
  tt_loader_options bad[] = {{.batch = 0}, {.batch = 21, .drop_last = true}, {.batch = 4, .augment.crop = 33}, {.batch = 4, .augment.crop = -1}, {.batch = 4, .n_threads = -1}};
  for (int i = 0; i < 5; i++) {
    tt_error err = {0};
    cr_assert_null(tt_loader_new(d, &bad[i], &err));
    cr_assert_eq(err.status, TT_INVALID);
  }
  for (int i = 0; i < 100; i++) {
    tt_loader *l = tt_loader_new(d, &(tt_loader_options){.batch = 4, .n_threads = 1 + i % 4, .drop_last = true}, NULL);
    tt_batch b;
    cr_assert_eq(tt_loader_batches(l), 5);
    for (int k = 0; k < i % 5; k++) tt_loader_next(l, &b, NULL);
    if (i % 2) tt_loader_seek(l, 1, 2);
    tt_loader_free(l);
  }
  tt_loader_free(NULL);
  tt_dataset_free(d);
}
