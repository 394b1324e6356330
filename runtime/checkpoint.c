/* checkpoint.c: all that training needs to go on with the same bits: parameters, running statistics, optimizer state, and where
 * the data stands, in one file, DIR/checkpoint.safetensors. One rename puts it there, so that a process killed at any instant
 * leaves a whole checkpoint: the new one or the one before. The position is text in the file's metadata. */
#define _GNU_SOURCE
#include "runtime.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "checkpoint.safetensors"

static tt_status make_folder(const char *dir, tt_error *err) {
  char path[RT_PATH];
  snprintf(path, sizeof path, "%s", dir);
  for (char *p = path + 1;; p++) {
    if (*p && *p != '/') continue;
    char kept = *p;
    *p = 0;
    if (mkdir(path, 0777) != 0 && errno != EEXIST) return tt_fail(err, TT_IO, "error: the checkpoint folder cannot be made: %s\n  at %s\n  fix: choose a folder that can be written", strerror(errno), path);
    if (!kept) return TT_OK;
    *p = kept;
  }
}

/* What a process killed while writing left behind. */
static void remove_leftovers(const char *dir) {
  DIR *d = opendir(dir);
  for (struct dirent *e; d && (e = readdir(d));) {
    size_t n = strlen(e->d_name);
    if (strncmp(e->d_name, FILE_NAME ".", sizeof FILE_NAME) || n < 4 || strcmp(e->d_name + n - 4, ".tmp")) continue;
    char path[4400];
    snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    unlink(path);
  }
  if (d) closedir(d);
}

tt_status rt_checkpoint_save(const char *dir, rt_params *p, const rt_position *at, tt_error *err) {
  char path[RT_PATH], text[7][40], plateau[100];
  tt_status status = rt_path(path, dir, FILE_NAME, err);
  if (status == TT_OK) status = make_folder(dir, err);
  if (status != TT_OK) return status;
  int n = 0;
  tt_named_tensor *tensors = calloc((size_t)rt_params_count(p) + 1, sizeof *tensors);
  if (!tensors) return tt_fail(err, TT_NO_MEMORY, "error: no memory to write a checkpoint\n  at %s\n  fix: use a machine with more memory", path);
  for (int i = 0; i < rt_params_count(p); i++)
    if (!rt_params_at(p, i)->passing) tensors[n++] = (tt_named_tensor){rt_params_at(p, i)->name, rt_params_at(p, i)->tensor};
  snprintf(text[0], sizeof *text, "%" PRId64, at->epoch);
  snprintf(text[1], sizeof *text, "%" PRId64, at->batch);
  snprintf(text[2], sizeof *text, "%" PRId64, at->step);
  snprintf(text[3], sizeof *text, "%" PRIu64, at->seed);
  snprintf(text[4], sizeof *text, "%a", at->loss_sum);   /* hexadecimal: exact */
  snprintf(text[5], sizeof *text, "%" PRId64, at->samples);
  snprintf(text[6], sizeof *text, "%" PRId64, at->correct);
  snprintf(plateau, sizeof plateau, "%a %a %" PRId64, at->plateau.best, at->plateau.scale, at->plateau.bad);
  tt_metadata metadata[] = {{"tinytorch.epoch", text[0]}, {"tinytorch.batch", text[1]}, {"tinytorch.step", text[2]}, {"tinytorch.seed", text[3]}, {"tinytorch.loss_sum", text[4]},
                            {"tinytorch.samples", text[5]}, {"tinytorch.correct", text[6]}, {"tinytorch.plateau", plateau}, {"tinytorch.config", at->config ? at->config : ""}};
  remove_leftovers(dir);
  status = tt_safetensors_save(path, tensors, n, metadata, sizeof metadata / sizeof *metadata, err);
  free(tensors);
  return status;
}

static bool read_number(const tt_safetensors *f, const char *key, int64_t *value) {
  const char *text = tt_safetensors_metadata(f, key);
  char *end;
  errno = 0;
  if (!text || !*text) return false;
  *value = strtoll(text, &end, 10);
  return !*end && !errno && *value >= 0;
}

static bool read_plateau(const tt_safetensors *f, tt_plateau *p) {
  const char *text = tt_safetensors_metadata(f, "tinytorch.plateau");
  char *end = NULL, *second = NULL, *third = NULL;
  if (!text) return false;
  p->best = strtod(text, &end), p->scale = strtod(end, &second), p->bad = strtoll(second, &third, 10);
  return end != text && second != end && third != second && !*third && p->best > -INFINITY && p->scale >= 0 && p->scale <= 1 && p->bad >= 0;
}

static bool read_position(const tt_safetensors *f, rt_position *at) {
  const char *seed = tt_safetensors_metadata(f, "tinytorch.seed"), *sum = tt_safetensors_metadata(f, "tinytorch.loss_sum");
  char *end = NULL, *sum_end = NULL;
  if (seed) at->seed = strtoull(seed, &end, 10);
  if (sum) at->loss_sum = strtod(sum, &sum_end);
  return end && !*end && end != seed && sum_end && !*sum_end && sum_end != sum && read_plateau(f, &at->plateau) && read_number(f, "tinytorch.epoch", &at->epoch) && read_number(f, "tinytorch.batch", &at->batch) &&
         read_number(f, "tinytorch.step", &at->step) && read_number(f, "tinytorch.samples", &at->samples) && read_number(f, "tinytorch.correct", &at->correct);
}

/* The next word of a config, up to a blank outside of quotes; 0: there is none. */
static size_t next_word(const char **rest) {
  while (**rest == ' ') ++*rest;
  size_t n = 0;
  for (bool quoted = false; (*rest)[n] && (quoted || (*rest)[n] != ' '); n++) quoted ^= (*rest)[n] == '"';
  return n;
}
static bool has_word(const char *config, const char *word, size_t length) {
  for (size_t n; (n = next_word(&config)); config += n)
    if (n == length && !memcmp(config, word, n)) return true;
  return false;
}
/* The words of one config that the other lacks; cut off where the text ends. */
static char *only_in(const char *config, const char *other, char *text, size_t size) {
  size_t used = 0;
  text[0] = 0;
  for (size_t n; (n = next_word(&config)); config += n)
    if (!has_word(other, config, n) && used < size) used += (size_t)snprintf(text + used, size - used, "%s%.*s", used ? " " : "", (int)n, config);
  return used ? text : strcpy(text, "nothing else");
}

/* All is read and compared before anything of the store is changed. */
static tt_status restore(tt_safetensors *f, const char *path, rt_params *p, rt_position *at, tt_tensor **loaded, tt_error *err) {
  rt_position found = {0};
  if (!read_position(f, &found)) return tt_fail(err, TT_FORMAT, "error: expected the position of a training run (tinytorch.epoch, .batch, .step, .seed, .loss_sum, .samples, .correct, .plateau) in __metadata__\n  at %s\n  fix: the file holds weights, but is no checkpoint; load it as initial weights", path);
  const char *config = tt_safetensors_metadata(f, "tinytorch.config"), *want = at->config ? at->config : "";
  if (!config) config = "";
  if (strcmp(config, want)) {
    char made[700], now[700];
    return tt_fail(err, TT_INVALID, "error: the checkpoint is of another run\n  at %s: it was made with %s, this run has %s\n  fix: resume with the same model, data, options and CPU, or choose another folder", path,
                   only_in(config, want, made, sizeof made), only_in(want, config, now, sizeof now));
  }
  int n = rt_params_count(p), saved = 0;
  for (int i = 0; i < n; i++) saved += !rt_params_at(p, i)->passing;
  if (tt_safetensors_count(f) != saved) return tt_fail(err, TT_INVALID, "error: the checkpoint holds %d tensors, the model %d\n  at %s\n  fix: resume with the model that made it", tt_safetensors_count(f), saved, path);
  for (int i = 0; i < n; i++) {
    rt_param *q = rt_params_at(p, i);
    if (q->passing) continue;
    if (!(loaded[i] = tt_safetensors_get(f, q->name, err))) return err && err->status ? err->status : TT_INVALID;
    tt_shape a = tt_tensor_shape(loaded[i]), b = tt_tensor_shape(q->tensor);
    char stored[200], wanted[200];
    if (tt_tensor_dtype(loaded[i]) != tt_tensor_dtype(q->tensor) || !tt_shape_equal(&a, &b))
      return tt_fail(err, TT_INVALID, "error: parameter %s is %s in the checkpoint and %s in the model\n  at %s\n  fix: resume with the model that made it", q->name,
                     tt_type_text(tt_tensor_dtype(loaded[i]), &a, stored, sizeof stored), tt_type_text(tt_tensor_dtype(q->tensor), &b, wanted, sizeof wanted), path);
  }
  for (int i = 0; i < n; i++)
    if (loaded[i]) tt_tensor_copy(rt_params_at(p, i)->tensor, loaded[i], NULL);   /* equal types and shapes: cannot fail */
  found.config = at->config;
  *at = found;
  return TT_OK;
}

tt_status rt_checkpoint_load(const char *dir, rt_params *p, rt_position *at, tt_error *err) {
  char path[RT_PATH];
  tt_status status = rt_path(path, dir, FILE_NAME, err);
  if (status != TT_OK) return status;
  tt_error local = {0};
  if (!err) err = &local;
  tt_safetensors *f = tt_safetensors_open(path, err);
  if (!f) return err->status;
  int n = rt_params_count(p);
  tt_tensor **loaded = calloc((size_t)n + 1, sizeof *loaded);
  status = loaded ? restore(f, path, p, at, loaded, err) : tt_fail(err, TT_NO_MEMORY, "error: no memory to read a checkpoint\n  at %s\n  fix: use a machine with more memory", path);
  for (int i = 0; loaded && i < n; i++) tt_tensor_free(loaded[i]);
  free(loaded);
  tt_safetensors_close(f);
  return status;
}
