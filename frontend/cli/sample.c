/* sample.c: `tinytorch sample`: images that a trained vae or gan makes of noise, side by side in one PNG, and how far they lie apart, against as many images of
 * the data: a generator that has collapsed to a few images shows by that. The data says how large images are and how they were normalized. */
#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

const cli_option cli_sample_options[] = {
  CLI_DATA,
  {"checkpoint", "DIR", "what tinytorch train --checkpoint DIR wrote"},
  {"count", "N", "images (default 64)"},
  {"seed", "N", "of the noise (default 1)"},
  {"out", "FILE.png", "the sheet (default samples.png)"},
  CLI_NO_EMA, CLI_BACKEND, CLI_THREADS, CLI_CPU,
  {NULL, NULL, NULL},
};

enum { MOST = 4096, GAP = 2 };

/* Mean Euclidean distance of two different ones of n images, pixels from 0 to 1; NaN of fewer than two. */
static double mean_distance(const uint8_t *pixels, int64_t n, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) {
      double d = 0;
      for (int64_t k = 0; k < size; k++) d += ((double)pixels[i * size + k] - pixels[j * size + k]) * ((double)pixels[i * size + k] - pixels[j * size + k]);
      sum += sqrt(d) / 255;
    }
  return 2 * sum / (double)(n * (n - 1));
}

/* images [n,C,H,W] in rows of a sheet that is about square. */
static tt_status write_sheet(const char *path, const uint8_t *images, int64_t n, const tt_dataset *d, tt_error *err) {
  int64_t columns = (int64_t)ceil(sqrt((double)n)), rows = (n + columns - 1) / columns, c = d->channels, width = columns * (d->width + GAP) + GAP, height = rows * (d->height + GAP) + GAP;
  uint8_t *sheet = calloc((size_t)(width * height), (size_t)c);
  if (!sheet) return tt_fail(err, TT_NO_MEMORY, "error: no memory for a sheet of %lld images\n  at %s\n  fix: ask for fewer", (long long)n, path);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k < c; k++)
      for (int64_t y = 0; y < d->height; y++)
        for (int64_t x = 0; x < d->width; x++)
          sheet[((i / columns * (d->height + GAP) + GAP + y) * width + i % columns * (d->width + GAP) + GAP + x) * c + k] = images[((i * c + k) * d->height + y) * d->width + x];
  png_image png = {.version = PNG_IMAGE_VERSION, .width = (png_uint_32)width, .height = (png_uint_32)height, .format = c == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY};
  if (!png_image_write_to_file(&png, path, 0, sheet, 0, NULL)) tt_fail(err, TT_IO, "error: the sheet cannot be written: %s\n  at --out %s\n  fix: give a path in a folder that may be written", png.message, path);
  png_image_free(&png);
  free(sheet);
  return err->status;
}

/* Pixels 0 .. 255 of normalized images. */
static uint8_t *pixels_of(const tt_tensor *y, const tt_dataset *d, int64_t n, tt_error *err) {
  int64_t area = d->height * d->width;
  const float *v = tt_tensor_data((tt_tensor *)y);
  uint8_t *pixels = malloc((size_t)(n * d->channels * area));
  if (!pixels) tt_fail(err, TT_NO_MEMORY, "error: no memory for %lld images\n  at tinytorch sample\n  fix: ask for fewer", (long long)n);
  for (int64_t i = 0; pixels && i < n * d->channels * area; i++) {
    int64_t channel = i / area % d->channels;
    double p = 255 * ((double)v[i] * d->std[channel] + d->mean[channel]);
    pixels[i] = p > 0 ? p < 255 ? (uint8_t)lrint(p) : 255 : 0;       /* NaN: black */
  }
  return pixels;
}

static tt_tensor *make(tt_model *m, const model_info *info, int64_t count, int64_t seed, tt_error *err) {
  tt_tensor *z = tt_tensor_new(TT_F32, &TT_SHAPE(count, info->latent), err), *y = NULL;
  tt_shape s = TT_SHAPE(count, info->latent);
  if (z && tt_init_fill(tt_init_normal(0, 1), "noise", (uint64_t)seed, TT_F32, &s, tt_tensor_data(z), err) == TT_OK) y = tt_predict(m, z, err);
  tt_tensor_free(z);
  return y;
}

int cli_sample(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  if (!info->sample) return cli_usage(a, "only vae and gan make images");
  if (!cli_has(a, "data") || !cli_has(a, "checkpoint")) return cli_usage(a, "--data and --checkpoint say what it was trained on, and where that stands");
  int64_t count, seed;
  if (!cli_target(a) || !cli_int(a, "count", 64, 1, &count) || !cli_int(a, "seed", 1, 0, &seed)) return 2;
  if (count > MOST) return cli_usage(a, "--count wants at most 4096");
  const char *out = cli_get(a, "out", "samples.png");
  char path[RT_PATH];
  if (rt_path(path, cli_get(a, "checkpoint", NULL), "checkpoint.safetensors", &err) != TT_OK) return cli_fail(&err);
  cli_data data;
  if (!cli_data_open(a, info, false, &data, &err)) return cli_fail(&err);
  const tt_dataset *d = data.test;
  model_config arg = {.classes = d->n_classes, .channels = d->channels, .height = d->height, .width = d->width};
  model_info maker = *info;
  maker.function = info->sample;
  tt_model *m = cli_model_new(a, &maker, &arg, &err);
  if (!m && !err.status) return cli_data_free(&data), 2;
  tt_tensor *y = m && tt_model_load(m, path, &err) == TT_OK ? make(m, info, count, seed, &err) : NULL;
  uint8_t *pixels = y ? pixels_of(y, d, count, &err) : NULL;
  if (pixels && write_sheet(out, pixels, count, d, &err) == TT_OK) {
    int64_t size = d->channels * d->height * d->width, of_data = d->n < count ? d->n : count;
    printf("%s: %lld images in %s", info->name, (long long)count, out);
    if (count > 1 && of_data > 1) printf(", mean distance %.3f, of the data's %.3f", mean_distance(pixels, count, size), mean_distance(d->pixels, of_data, size));
    printf("\n");
  }
  free(pixels);
  tt_tensor_free(y);
  tt_model_free(m);
  cli_data_free(&data);
  return err.status ? cli_fail(&err) : 0;
}
