/* dataset.c: data sets by name. Images stay the bytes they are; mean and standard deviation of each channel are those of the
 * training part, also for the test part, because a model has seen no other (shapes: of its first 1000 training images). They
 * are sums of integers, so they are the same everywhere. */
#define _GNU_SOURCE
#include "../runtime.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHAPES_MEASURED = 1000 };

static void measure(tt_dataset *d, const rt_images *r) {
  int64_t area = r->height * r->width;
  for (int64_t c = 0; c < r->channels; c++) {
    uint64_t sum = 0, squares = 0;
    for (int64_t i = 0; i < r->n; i++) {
      const uint8_t *p = r->pixels + (i * r->channels + c) * area;
      uint64_t s = 0, q = 0;
      for (int64_t k = 0; k < area; k++) {
        s += p[k];
        q += (uint64_t)p[k] * p[k];
      }
      sum += s;
      squares += q;
    }
    double n = (double)(r->n * area), mean = (double)sum / n, variance = (double)squares / n - mean * mean;
    d->mean[c] = (float)(mean / 255);
    d->std[c] = variance > 0 ? (float)(sqrt(variance) / 255) : 1;
  }
}

static void free_images(rt_images *r) {
  free(r->pixels);
  free(r->labels);
  *r = (rt_images){0};
}

static tt_status read_part(const char *name, const char *rest, bool train, bool to_measure, rt_images *r, tt_error *err) {
  if (!strcmp(name, "cifar10")) return rt_cifar10_images(rest, train, r, err);
  bool masks = !strcmp(name, "shape-masks");
  if (strcmp(name, "shapes") && !masks) return rt_idx_images(rest, train, r, err);
  char *end;
  errno = 0;
  long long count = strtoll(rest, &end, 10);
  if (!*rest || *end || errno || count < 1 || count > 100000000)
    return tt_fail(err, TT_INVALID, "error: \"%.100s\" is no number of images\n  at data set %s:%.100s\n  fix: write %s:COUNT with 1 to 100000000, like %s:5000", rest, name, rest, name, name);
  if (to_measure && count > SHAPES_MEASURED) count = SHAPES_MEASURED;
  return rt_shapes_images(train ? count : (count + 4) / 5, train, masks, r, err);
}

tt_dataset *tt_dataset_open(const char *what, bool train, tt_error *err) {
  static const char *const cifar10[] = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
  static const char *const fashion[] = {"t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"};
  static const char *const shapes[] = {"ground", "disc", "ring", "square", "frame", "triangle up", "triangle down", "cross", "diagonal cross", "horizontal bar", "vertical bar"};
  static const struct { const char *name; const char *const *classes; } sets[] = {
    {"cifar10", cifar10}, {"fashion-mnist", fashion}, {"mnist", NULL}, {"shapes", shapes + 1}, {"shape-masks", shapes},
  };
  enum { SETS = sizeof sets / sizeof *sets, DRAWN = 3 };                /* from there on */
  const char *colon = strchr(what, ':');
  int i = 0;
  while (colon && i < SETS && !(strlen(sets[i].name) == (size_t)(colon - what) && !strncmp(sets[i].name, what, strlen(sets[i].name)))) i++;
  if (!colon || i == SETS || !colon[1]) {
    tt_fail(err, TT_INVALID, "error: there is no data set \"%.200s\"\n  at tt_dataset_open\n  fix: use one of cifar10:DIR, mnist:DIR, fashion-mnist:DIR, shapes:COUNT, shape-masks:COUNT", what);
    return NULL;
  }
  tt_error local = {0};
  tt_dataset *d = calloc(1, sizeof *d);
  rt_images r = {0}, training = {0};
  if (!err) err = &local;
  if (!d) tt_fail(err, TT_NO_MEMORY, "error: no memory for a data set\n  at %.200s\n  fix: use a machine with more memory", what);
  bool other = !train || i >= DRAWN;                         /* measured on another set of images than r */
  if (!d || read_part(sets[i].name, colon + 1, train, false, &r, err) != TT_OK || (other && read_part(sets[i].name, colon + 1, true, true, &training, err) != TT_OK)) {
    free(d);
    free_images(&r);
    return NULL;
  }
  if (other && (training.height != r.height || training.width != r.width)) {
    tt_fail(err, TT_FORMAT, "error: training images are %lld x %lld, test images %lld x %lld\n  at %.200s\n  fix: take both parts of one data set", (long long)training.height, (long long)training.width, (long long)r.height, (long long)r.width, what);
    free(d);
    free_images(&r);
    free_images(&training);
    return NULL;
  }
  *d = (tt_dataset){.name = sets[i].name, .class_names = sets[i].classes, .n = r.n, .channels = r.channels, .height = r.height, .width = r.width, .n_classes = r.pixel_labels ? 11 : 10, .pixels = r.pixels, .labels = r.labels, .pixel_labels = r.pixel_labels};
  measure(d, other ? &training : &r);
  free_images(&training);
  return d;
}

void tt_dataset_free(tt_dataset *d) {
  if (!d) return;
  free((void *)d->pixels);
  free((void *)d->labels);
  free((void *)d->tokens);
  free(d);
}

const char *tt_dataset_samples(const tt_dataset *d) { return d->tokens ? "sequences" : "images"; }

tt_shape tt_dataset_shape(const tt_dataset *d, int64_t batch, tt_dtype *dtype) {
  *dtype = d->tokens ? TT_I32 : TT_F32;
  return d->tokens ? (tt_shape){2, {batch, d->context}} : (tt_shape){4, {batch, d->channels, d->height, d->width}};
}
