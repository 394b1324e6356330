/* Augmentation: its text, each kind against a few lines of its own here, and the loader with all of them: the same on any number of threads and after seeks. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

Test(augment, text) {
  tt_augment a = {.crop = 9};
  cr_assert_eq(tt_augment_parse("", &a, NULL), TT_OK);
  cr_assert_eq(a.crop, 0);
  cr_assert_eq(tt_augment_parse("crop, flip,jitter , cutout,mixup,cutmix", &a, NULL), TT_OK);
  cr_assert(a.crop == 4 && a.flip && a.jitter == 0.4 && a.cutout == 8 && a.mixup == 0.2 && a.cutmix == 1);
  cr_assert_eq(tt_augment_parse("mixup=0.3,crop=2", &a, NULL), TT_OK);
  cr_assert(a.crop == 2 && !a.flip && a.jitter == 0 && a.cutout == 0 && a.mixup == 0.3 && a.cutmix == 0);
  tt_augment all = {.crop = 3, .flip = true, .jitter = 1.0 / 3, .cutout = 5, .mixup = 0.1, .cutmix = 1e-3}, again;
  char text[200];
  rt_augment_text(&all, text, sizeof text);
  cr_assert_eq(tt_augment_parse(text, &again, NULL), TT_OK, "%s", text);
  cr_assert(again.crop == 3 && again.flip && again.jitter == all.jitter && again.cutout == 5 && again.mixup == all.mixup && again.cutmix == all.cutmix);
  const char *bad[] = {"blur", "crop=0", "crop=-1", "crop=1.5", "crop=x", "crop=", "crop=4x", "flip=1", "jitter=1.5", "jitter=nan", "mixup=0", "mixup=inf", "cutmix=1e9", "flip,flip", "=3", "cropp=3"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    tt_error err = {0};
    a = all;
    cr_expect_eq(tt_augment_parse(bad[i], &a, &err), TT_INVALID, "%s", bad[i]);
    cr_expect(strstr(err.message, "\n  at ") && strstr(err.message, "\n  fix: "), "%s", err.message);
    cr_expect_eq(a.crop, 3);                                                 /* left alone */
  }
}

static void draw(void *from, uint32_t i, uint32_t out[4]) { tt_philox(10, (uint32_t[4]){i, *(int *)from, 7, 7}, (uint32_t[2]){3, 4}, out); }

/* Mean 1/2 and variance 1 / (4 (2 alpha + 1)), small alphas too. */
Test(augment, beta) {
  const double alphas[] = {0.01, 0.2, 1, 8};
  enum { N = 20000 };
  for (int k = 0; k < 4; k++) {
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
      uint32_t next = 0;
      double v = rt_augment_beta(alphas[k], draw, &i, &next);
      cr_assert(v >= 0 && v <= 1);
      sum += v - 0.5, squares += (v - 0.5) * (v - 0.5);
    }
    double variance = 1 / (4 * (2 * alphas[k] + 1));
    cr_expect_lt(fabs(sum / N), 4 * sqrt(variance / N), "alpha %g", alphas[k]);
    cr_expect_lt(fabs(squares / N / variance - 1), 0.05, "alpha %g: variance %g, not %g", alphas[k], squares / N, variance);
  }
}

static double grey(const double *v) { return 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2]; }
static double in_range(double v) { return v < 0 ? 0 : v > 1 ? 1 : v; }

Test(augment, jitter) {
  enum { AREA = 12 };
  for (uint32_t round = 0; round < 50; round++) {
    float image[3 * AREA];
    double want[AREA][3], mean = 0;
    uint32_t words[4];
    tt_philox(10, (uint32_t[4]){round, 1, 2, 3}, (uint32_t[2]){1, 2}, words);
    for (int i = 0; i < 3 * AREA; i++) image[i] = (float)(tt_random_word(1, round, 0, (uint64_t)i) / 4294967296.0);
    double f[3];
    for (int i = 0; i < 3; i++) f[i] = 0.2 + 1.6 * (words[i] + 0.5) / 4294967296.0;
    for (int i = 0; i < AREA; i++) {
      for (int c = 0; c < 3; c++) want[i][c] = in_range(f[0] * (double)image[c * AREA + i]);
      mean += grey(want[i]) / AREA;
    }
    for (int i = 0; i < AREA; i++) {
      for (int c = 0; c < 3; c++) want[i][c] = in_range(f[1] * want[i][c] + (1 - f[1]) * mean);
      double own = grey(want[i]);
      for (int c = 0; c < 3; c++) want[i][c] = in_range(f[2] * want[i][c] + (1 - f[2]) * own);
    }
    rt_augment_jitter(image, 3, AREA, 0.8, words);
    for (int i = 0; i < AREA; i++)
      for (int c = 0; c < 3; c++) cr_assert_float_eq((double)image[c * AREA + i], want[i][c], 1e-5);
  }
}

/* Every image has one window of zeros, of the side where it does not cross the border, and windows are everywhere. */
Test(augment, cutout) {
  enum { H = 6, W = 9 };
  int seen[H][W] = {0}, whole = 0;
  for (uint32_t round = 0; round < 400; round++) {
    float image[2 * H * W];
    uint32_t words[4];
    tt_philox(10, (uint32_t[4]){round, 1, 2, 3}, (uint32_t[2]){5, 2}, words);
    for (int i = 0; i < 2 * H * W; i++) image[i] = 1;
    rt_augment_cutout(image, 2, H, W, 3, words);
    int y0 = H, y1 = -1, x0 = W, x1 = -1, zeros = 0;
    for (int y = 0; y < H; y++)
      for (int x = 0; x < W; x++) {
        cr_assert_eq(image[y * W + x], image[H * W + y * W + x]);
        if (image[y * W + x] != 0) continue;
        zeros++, seen[y][x]++;
        y0 = y < y0 ? y : y0, y1 = y > y1 ? y : y1, x0 = x < x0 ? x : x0, x1 = x > x1 ? x : x1;
      }
    cr_assert_eq(zeros, (y1 - y0 + 1) * (x1 - x0 + 1));
    cr_assert((y1 - y0 == 2 || y0 == 0 || y1 == H - 1) && (x1 - x0 == 2 || x0 == 0 || x1 == W - 1) && y1 - y0 <= 2 && x1 - x0 <= 2 && zeros >= 4);
    whole += zeros == 9;
  }
  for (int i = 0; i < H * W; i++) cr_assert_gt((&seen[0][0])[i], 0);
  cr_assert_gt(whole, 100);
}

static tt_loader *loader(const tt_dataset *d, tt_augment a, int threads) {
  tt_error err = {0};
  tt_loader *l = tt_loader_new(d, &(tt_loader_options){.batch = 15, .shuffle = true, .augment = a, .seed = 5, .n_threads = threads}, &err);
  cr_assert(l, "%s", err.message);
  return l;
}

/* A mixed batch is what the same batch without mixing, image by image, says: lambda from the labels, everything else follows. */
Test(augment, mixing, .timeout = 60) {
  enum { B = 15, SIZE = 3 * 32 * 32 };
  tt_dataset *d = tt_dataset_open("shapes:200", true, NULL);
  int kinds[2] = {0};
  for (int mode = 0; mode < 3; mode++) {
    tt_loader *plain = loader(d, (tt_augment){.crop = 2, .flip = true}, 1), *mixed = loader(d, (tt_augment){.crop = 2, .flip = true, .mixup = mode == 1 ? 0 : 0.6, .cutmix = mode == 0 ? 0 : 1}, 1);
    for (int round = 0; round < 30; round++) {
      tt_batch p, m;
      tt_loader_next(plain, &p, NULL), tt_loader_next(mixed, &m, NULL);
      tt_shape s = tt_tensor_shape(m.y);
      cr_assert(tt_tensor_dtype(m.y) == TT_F32 && s.rank == 2 && s.dim[0] == B && s.dim[1] == 10);
      const float *u = tt_tensor_data(p.x), *v = tt_tensor_data(m.x), *shares = tt_tensor_data(m.y);
      const int32_t *labels = tt_tensor_data(p.y);
      float keep = -1;
      for (int i = 0; i < B; i++) {                                          /* the middle one is its own partner */
        int32_t own = labels[i], other = labels[B - 1 - i];
        float sum = 0;
        for (int c = 0; c < 10; c++) {
          sum += shares[i * 10 + c];
          cr_assert(c == own || c == other || shares[i * 10 + c] == 0);
        }
        cr_assert_float_eq((double)sum, 1, 1e-6);
        if (own == other) continue;
        cr_assert(keep < 0 || keep == shares[i * 10 + own]);                 /* one for the batch */
        keep = shares[i * 10 + own];
      }
      if (keep < 0) continue;
      int64_t neither_nor = 0, swapped = 0;
      for (int64_t i = 0; i < B; i++)
        for (int64_t k = 0; k < SIZE; k++) {
          float a = u[i * SIZE + k], b = u[(B - 1 - i) * SIZE + k], got = v[i * SIZE + k];
          if (fabsf(got - (keep * a + (1 - keep) * b)) > 1e-5f) neither_nor++;
          if (i == 0 && got == b && a != b) swapped++;
          if (neither_nor) cr_assert(mode != 0 && (got == a || got == b));
        }
      kinds[neither_nor > 0]++;
      if (mode == 0) cr_assert_eq(neither_nor, 0);
      /* The share of exchanged pixels is that of the label (pixels that are alike in both pictures are not counted). */
      if (neither_nor) cr_assert(swapped <= (1 - (double)keep) * SIZE + 0.5 && (keep > 0.99f || swapped > 0));
    }
    tt_loader_free(plain), tt_loader_free(mixed);
  }
  cr_assert(kinds[0] > 30 && kinds[1] > 30, "%d mixed up, %d cut", kinds[0], kinds[1]);
  tt_dataset_free(d);
}

static uint64_t hash(const tt_batch *b) {
  uint64_t h = 14695981039346656037u;
  for (int which = 0; which < 2; which++) {
    tt_shape s = tt_tensor_shape(which ? b->y : b->x);
    const uint8_t *p = tt_tensor_data(which ? b->y : b->x);
    for (int64_t i = 0; i < tt_shape_count(&s) * 4; i++) h = (h ^ p[i]) * 1099511628211u;
  }
  return h;
}

Test(augment, same_on_any_threads_and_after_seeks, .timeout = 120) {
  enum { BATCHES = 2 * 7 };
  for (int masks = 0; masks < 2; masks++) {
    tt_dataset *d = tt_dataset_open(masks ? "shape-masks:103" : "shapes:103", true, NULL);
    tt_augment a = {.crop = 4, .flip = true, .jitter = 0.4};
    if (!masks) a.cutout = 6, a.mixup = 0.3, a.cutmix = 1;
    uint64_t want[BATCHES];
    tt_batch b;
    for (int threads = 1; threads <= 3; threads++) {
      tt_loader *l = loader(d, a, threads);
      for (int i = 0; i < BATCHES; i++) {
        tt_loader_next(l, &b, NULL);
        if (threads == 1) want[i] = hash(&b);
        cr_assert_eq(hash(&b), want[i], "batch %d, %d threads", i, threads);
      }
      for (int i = 0; i < BATCHES; i++) {
        int to = i * 5 % BATCHES;
        tt_loader_seek(l, to / 7, to % 7);
        tt_loader_next(l, &b, NULL);
        cr_assert_eq(hash(&b), want[to]);
      }
      tt_loader_free(l);
    }
    for (int i = 0; i < BATCHES; i++)
      for (int k = 0; k < i; k++) cr_assert_neq(want[i], want[k]);
    tt_dataset_free(d);
  }
}

/* A mask goes where its image goes: pixels of the shape and of the ground differ by more than the noise, in both pictures. */
Test(augment, masks_follow_their_images, .timeout = 60) {
  tt_dataset *d = tt_dataset_open("shape-masks:60", true, NULL);
  cr_assert(d->pixel_labels && d->n_classes == 11);
  tt_loader *l = loader(d, (tt_augment){.crop = 4, .flip = true}, 1);
  for (int round = 0; round < 4; round++) {
    tt_batch b;
    tt_loader_next(l, &b, NULL);
    cr_assert_eq(tt_tensor_shape(b.y).rank, 3);
    const float *x = tt_tensor_data(b.x);
    const int32_t *y = tt_tensor_data(b.y);
    for (int i = 0; i < 15; i++) {
      int kind = 0;
      double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY}, padding = (0 - (double)d->mean[0]) / (double)d->std[0];
      for (int k = 0; k < 1024; k++) {
        double v = (double)x[i * 3072 + k];
        int label = y[i * 1024 + k], in = label > 0;
        if (!in && fabs(v - padding) < 1e-6) continue;
        cr_assert(label >= 0 && label <= 10 && (!in || !kind || label == kind));
        if (in) kind = label;
        low[in] = v < low[in] ? v : low[in], high[in] = v > high[in] ? v : high[in];
      }
      cr_assert(kind && (low[1] > high[0] - 1.1 || low[0] > high[1] - 1.1));   /* noise of up to 40 levels either way */
      cr_assert_gt(fabs((low[1] + high[1]) / 2 - (low[0] + high[0]) / 2), 0.15);
    }
  }
  tt_loader_free(l);
  tt_dataset_free(d);
}

Test(augment, wrong_options) {
  tt_dataset *d = tt_dataset_open("shapes:20", true, NULL), *m = tt_dataset_open("shape-masks:20", true, NULL);
  const struct { const tt_dataset *d; tt_augment a; const char *says; } bad[] = {
    {d, {.crop = 33}, "crop 33 is out of range"}, {d, {.crop = -1}, "crop -1"}, {d, {.cutout = 65}, "cutout 65"}, {d, {.jitter = 2}, "jitter 2"}, {d, {.mixup = -0.5}, "mixup -0.5"},
    {d, {.cutmix = NAN}, "cutmix nan"}, {m, {.mixup = 1}, "labels of each pixel"}, {m, {.cutout = 4}, "labels of each pixel"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    tt_error err = {0};
    cr_assert_null(tt_loader_new(bad[i].d, &(tt_loader_options){.batch = 4, .augment = bad[i].a}, &err));
    cr_assert(err.status == TT_INVALID && strstr(err.message, bad[i].says), "%s", err.message);
  }
  tt_dataset_free(d), tt_dataset_free(m);
}
