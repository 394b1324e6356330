/* train_log.c: what training did, a JSON object a line, for programs to read:
 *
 *   {"epoch":0,"step":12,"loss":1.93,"lr":0.1,"samples_per_second":40210.5}
 *   {"epoch":0,"steps":390,"train_loss":1.41,"train_accuracy":0.48,"test_loss":1.2,"test_accuracy":0.56,"seconds":4.2,"test_top5":0.97,"test_confusion":[[812,3],[17,790]]}
 *
 * A run that goes on from a checkpoint takes back the lines of the steps that it does again, so that every step is there once. */
#define _GNU_SOURCE
#include "runtime.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rt_log { FILE *file; char *path; };

static tt_status failed(const char *path, tt_error *err) {
  return tt_fail(err, TT_IO, "error: the log cannot be written: %s\n  at %s\n  fix: choose another file, or make room on the disk", strerror(errno), path);
}

/* Whole lines of steps before `step`. */
static tt_status cut_back(const char *path, int64_t step, tt_error *err) {
  rt_file f;
  if (access(path, F_OK) != 0) return TT_OK;
  tt_status status = rt_map_file(path, &f, err);
  if (status != TT_OK) return status;
  char *kept = malloc(f.bytes + 1);
  size_t n = 0;
  for (size_t at = 0; kept && at < f.bytes;) {
    const uint8_t *end = memchr(f.data + at, '\n', f.bytes - at);
    if (!end) break;
    size_t length = (size_t)(end - (f.data + at)) + 1;
    json_t *line = json_loadb((const char *)f.data + at, length, 0, NULL), *of = json_object_get(line, "step"), *after = json_object_get(line, "steps");
    if ((json_is_integer(of) && json_integer_value(of) < step) || (json_is_integer(after) && json_integer_value(after) <= step)) {
      memcpy(kept + n, f.data + at, length);
      n += length;
    }
    json_decref(line);
    at += length;
  }
  rt_unmap_file(&f);
  if (!kept) return tt_fail(err, TT_NO_MEMORY, "error: no memory to read the log\n  at %s\n  fix: choose another file for the log", path);
  status = rt_write_file(path, kept, n, err);
  free(kept);
  return status;
}

rt_log *rt_log_open(const char *path, int64_t resume_step, tt_error *err) {
  if (resume_step >= 0 && cut_back(path, resume_step, err) != TT_OK) return NULL;
  rt_log *g = calloc(1, sizeof *g);
  char *own = strdup(path);
  FILE *file = g && own ? fopen(path, resume_step >= 0 ? "ae" : "we") : NULL;
  if (!file) {
    if (!g || !own) errno = ENOMEM;
    failed(path, err);
    free(g);
    free(own);
    return NULL;
  }
  *g = (rt_log){file, own};
  return g;
}

void rt_log_close(rt_log *g) {
  if (!g) return;
  fclose(g->file);
  free(g->path);
  free(g);
}

/* Takes line over. */
static tt_status write_line(rt_log *g, json_t *line, tt_error *err) {
  bool ok = line && json_dumpf(line, g->file, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 && fputc('\n', g->file) != EOF && fflush(g->file) == 0;
  json_decref(line);
  return ok ? TT_OK : failed(g->path, err);
}

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }   /* JSON has no NaN */

tt_status rt_log_step(rt_log *g, const rt_position *at, double loss, double lr, double samples_per_second, tt_error *err) {
  if (!g) return TT_OK;
  return write_line(g, json_pack("{s:I, s:I, s:o, s:o, s:o}", "epoch", (json_int_t)at->epoch, "step", (json_int_t)at->step - 1, "loss", number(loss), "lr", number(lr), "samples_per_second", number(samples_per_second)), err);
}

/* Row by row; NULL: there is none, or no memory. */
static json_t *matrix(const int64_t *v, int64_t n) {
  json_t *rows = v ? json_array() : NULL;
  for (int64_t i = 0; i < n; i++) {
    json_t *row = json_array();
    for (int64_t j = 0; j < n; j++) json_array_append_new(row, json_integer(v[i * n + j]));
    json_array_append_new(rows, row);
  }
  return rows;
}

static void add_metrics(json_t *line, const tt_metrics *m) {
  for (int i = 0; i < TT_METRICS; i++) {
    char key[40];
    int64_t n;
    double v = tt_metrics_value(m, tt_metrics_name(i));
    const int64_t *confusion = tt_metrics_confusion(m, &n);
    bool is_matrix = !strcmp(tt_metrics_name(i), "confusion");
    snprintf(key, sizeof key, "test_%s", tt_metrics_name(i));
    if (is_matrix ? confusion != NULL : !isnan(v)) json_object_set_new(line, key, is_matrix ? matrix(confusion, n) : number(v));
  }
}

tt_status rt_log_epoch(rt_log *g, const rt_position *at, const tt_fit_result *r, const tt_metrics *metrics, tt_error *err) {
  if (!g) return TT_OK;
  json_t *line = json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "epoch", (json_int_t)at->epoch, "steps", (json_int_t)at->step, "train_loss", number(r->loss), "train_accuracy", number(r->train_accuracy),
                           "test_loss", number(r->test_loss), "test_accuracy", number(r->test_accuracy), "seconds", number(r->seconds));
  if (line && metrics) add_metrics(line, metrics);
  return write_line(g, line, err);
}
