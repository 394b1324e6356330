/* augment.c: what training changes in its images besides the window and the mirror that loader.c takes while it copies.
 *
 * All chance is in the words that are handed in, which the loader draws by counter: nothing here has a state. Jitter and cutout change one image;
 * mixup and cutmix change the images i and B-1-i of a batch with one another, in place, and say what share of its label each image keeps. */
#include "../runtime.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { WHOLE, SWITCH, REAL } number_kind;
typedef struct { const char *name; size_t at; number_kind kind; double otherwise, most; const char *wants; } row;
static const row rows[] = {
  {"crop", offsetof(tt_augment, crop), WHOLE, 4, 32767, "pixels to pad, from 1"},
  {"flip", offsetof(tt_augment, flip), SWITCH, 1, 1, "no number"},
  {"jitter", offsetof(tt_augment, jitter), REAL, 0.4, 1, "a share above 0, at most 1"},
  {"cutout", offsetof(tt_augment, cutout), WHOLE, 8, 32767, "the side of a square in pixels, from 1"},
  {"mixup", offsetof(tt_augment, mixup), REAL, 0.2, 100, "alpha of Beta(alpha, alpha), above 0, at most 100"},
  {"cutmix", offsetof(tt_augment, cutmix), REAL, 1, 100, "alpha of Beta(alpha, alpha), above 0, at most 100"},
};
enum { ROWS = sizeof rows / sizeof *rows };

static double get(const tt_augment *a, const row *r) {
  const void *p = (const char *)a + r->at;
  return r->kind == WHOLE ? *(const int *)p : r->kind == SWITCH ? *(const bool *)p : *(const double *)p;
}

static void set(tt_augment *a, const row *r, double v) {
  void *p = (char *)a + r->at;
  if (r->kind == WHOLE) *(int *)p = (int)v;
  else if (r->kind == SWITCH) *(bool *)p = true;
  else *(double *)p = v;
}

tt_status tt_augment_parse(const char *text, tt_augment *a, tt_error *err) {
  tt_augment out = {0};
  for (const char *p = text; *(p += strspn(p, ", "));) {
    size_t n = strcspn(p, ",= "), length = strcspn(p, ", ");
    const row *r = rows;
    while (r < rows + ROWS && (strlen(r->name) != n || strncmp(r->name, p, n))) r++;
    if (r == rows + ROWS) return tt_fail(err, TT_INVALID, "error: there is no augmentation \"%.*s\"\n  at \"%.200s\"\n  fix: use some of crop, flip, jitter, cutout, mixup, cutmix, as in crop=4,flip,mixup=0.2", (int)(n < 60 ? n : 60), p, text);
    double v = r->otherwise;
    char *end = (char *)p + n;
    if (p[n] == '=') v = r->kind == SWITCH ? NAN : strtod(p + n + 1, &end);
    if (end != p + length || (p[n] == '=' && end == p + n + 1) || !(v > 0 && v <= r->most) || (r->kind == WHOLE && v != floor(v)))
      return tt_fail(err, TT_INVALID, "error: \"%.*s\" is no augmentation: %s wants %s\n  at \"%.200s\"\n  fix: write %s, as in crop=4,flip,mixup=0.2", (int)(length < 60 ? length : 60), p, r->name, r->wants, text, r->kind == SWITCH ? r->name : "NAME=NUMBER");
    if (get(&out, r) != 0) return tt_fail(err, TT_INVALID, "error: %s is named twice\n  at \"%.200s\"\n  fix: name it once", r->name, text);
    set(&out, r, v);
    p += length;
  }
  *a = out;
  return TT_OK;
}

void rt_augment_text(const tt_augment *a, char *text, size_t size) {
  text[0] = 0;
  for (const row *r = rows; r < rows + ROWS; r++) {
    size_t used = strlen(text);
    double v = get(a, r);
    if (v != 0 && r->kind == SWITCH) snprintf(text + used, size - used, "%s%s", used ? "," : "", r->name);
    else if (v != 0) snprintf(text + used, size - used, "%s%s=%.17g", used ? "," : "", r->name, v);
  }
}

tt_status rt_augment_check(const tt_augment *a, const tt_dataset *d, tt_error *err) {
  for (const row *r = rows; r < rows + ROWS; r++) {
    double v = get(a, r);
    if (v != 0 && d->tokens) return tt_fail(err, TT_INVALID, "error: %s has no meaning for a text\n  at data set %s\n  fix: leave it out", r->name, d->name);
    if (v != 0 && !(v > 0 && v <= r->most)) return tt_fail(err, TT_INVALID, "error: %s %g is out of range: it wants %s\n  at data set %s\n  fix: use a number up to %g, or 0 for none", r->name, v, r->wants, d->name, r->most);
  }
  if (d->tokens) return TT_OK;
  int64_t least = d->height < d->width ? d->height : d->width;
  if (a->crop > least || a->cutout > 2 * least) return tt_fail(err, TT_INVALID, "error: %s %d is out of range\n  at data set %s of %lld x %lld\n  fix: use 0 to %lld", a->crop > least ? "crop" : "cutout", a->crop > least ? a->crop : a->cutout, d->name, (long long)d->height, (long long)d->width, (long long)(a->crop > least ? least : 2 * least));
  if (d->pixel_labels && (a->cutout || a->mixup > 0 || a->cutmix > 0)) return tt_fail(err, TT_INVALID, "error: %s has no meaning for labels of each pixel\n  at data set %s\n  fix: use crop, flip and jitter", a->cutout ? "cutout" : a->mixup > 0 ? "mixup" : "cutmix", d->name);
  return TT_OK;
}

static double uniform(uint32_t word) { return (word + 0.5) / 4294967296.0; }

/* Colours in 0..1. Brightness scales them; contrast draws them to, or away from, the image's mean grey; saturation each pixel's to or from its own grey
 * (ITU-R 601, for three channels). */
void rt_augment_jitter(float *image, int64_t channels, int64_t area, double amount, const uint32_t words[4]) {
  float factor[3];
  for (int i = 0; i < 3; i++) factor[i] = (float)(1 + amount * (2 * uniform(words[i]) - 1));
  const float weights[3] = {0.299f, 0.587f, 0.114f};
  double grey = 0;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t i = 0; i < area; i++) {
      float *v = &image[c * area + i];
      *v = *v * factor[0] > 1 ? 1 : *v * factor[0];
      grey += *v * (double)(channels == 3 ? weights[c] : 1 / (float)channels);
    }
  float mean = (float)(grey / (double)area);
  for (int64_t i = 0; i < area; i++) {
    float own = 0, v[4];
    for (int64_t c = 0; c < channels; c++) {
      v[c] = mean + factor[1] * (image[c * area + i] - mean);
      v[c] = v[c] < 0 ? 0 : v[c] > 1 ? 1 : v[c];
      own += channels == 3 ? weights[c] * v[c] : 0;
    }
    for (int64_t c = 0; c < channels; c++) {
      float s = channels == 3 ? own + factor[2] * (v[c] - own) : v[c];
      image[c * area + i] = s < 0 ? 0 : s > 1 ? 1 : s;
    }
  }
}

/* The window of that size around a random point, as far as it lies in the image. */
typedef struct { int64_t y0, y1, x0, x1; } box;
static box box_around(int64_t height, int64_t width, int64_t tall, int64_t wide, const uint32_t words[4]) {
  int64_t y = (int64_t)(words[0] % (uint64_t)height) - tall / 2, x = (int64_t)(words[1] % (uint64_t)width) - wide / 2;
  return (box){y < 0 ? 0 : y, y + tall > height ? height : y + tall, x < 0 ? 0 : x, x + wide > width ? width : x + wide};
}

void rt_augment_cutout(float *image, int64_t channels, int64_t height, int64_t width, int side, const uint32_t words[4]) {
  box b = box_around(height, width, side, side, words);
  for (int64_t c = 0; c < channels; c++)
    for (int64_t y = b.y0; y < b.y1; y++) memset(image + (c * height + y) * width + b.x0, 0, (size_t)(b.x1 - b.x0) * sizeof *image);
}

/* Logarithm of a number from Gamma(alpha): Marsaglia & Tsang 2000, and u^(1/alpha) below 1. In logarithms, because those of a small alpha underflow. */
static double log_gamma_draw(double alpha, rt_words *draw, void *from, uint32_t *next) {
  uint32_t w[4];
  draw(from, (*next)++, w);
  double less = alpha < 1 ? log(uniform(w[3])) / alpha : 0, d = (alpha < 1 ? alpha + 1 : alpha) - 1 / 3.0, c = 1 / sqrt(9 * d);
  for (;; draw(from, (*next)++, w)) {
    double x = sqrt(-2 * log(uniform(w[0]))) * cos(6.283185307179586 * uniform(w[1])), v = 1 + c * x;
    if (v > 0 && log(uniform(w[2])) < 0.5 * x * x + d - d * v * v * v + 3 * d * log(v)) return less + log(d) + 3 * log(v);
  }
}

double rt_augment_beta(double alpha, rt_words *draw, void *from, uint32_t *next) {
  double a = log_gamma_draw(alpha, draw, from, next), b = log_gamma_draw(alpha, draw, from, next);
  return 1 / (1 + exp(b - a));
}

float rt_augment_mix(const tt_augment *a, float *x, int64_t batch, int64_t channels, int64_t height, int64_t width, rt_words *draw, void *from) {
  uint32_t words[4], next = 1;
  draw(from, 0, words);
  bool cut = a->cutmix > 0 && (!(a->mixup > 0) || words[2] & 1);
  float keep = (float)rt_augment_beta(cut ? a->cutmix : a->mixup, draw, from, &next);
  int64_t size = channels * height * width;
  if (!cut) {
    for (int64_t i = 0; i < batch / 2; i++) {
      float *p = x + i * size, *q = x + (batch - 1 - i) * size;
      for (int64_t k = 0; k < size; k++) {
        float u = p[k], v = q[k];
        p[k] = keep * u + (1 - keep) * v, q[k] = keep * v + (1 - keep) * u;
      }
    }
    return keep;
  }
  double side = sqrt(1 - (double)keep);
  box b = box_around(height, width, (int64_t)((double)height * side), (int64_t)((double)width * side), words);
  for (int64_t i = 0; i < batch / 2; i++)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t y = b.y0; y < b.y1; y++) {
        float *p = x + i * size + (c * height + y) * width, *q = x + (batch - 1 - i) * size + (c * height + y) * width;
        for (int64_t k = b.x0; k < b.x1; k++) {
          float u = p[k];
          p[k] = q[k], q[k] = u;
        }
      }
  return 1 - (float)((b.y1 - b.y0) * (b.x1 - b.x0)) / (float)(height * width);
}
