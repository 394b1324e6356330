/* metrics.c: what an evaluation measures beside loss and accuracy: a row of the table for each name. A label that counts gives each metric one number, of its scores alone; numbers
 * are added one by one, in the order of the data set, and the metric follows from sum and count. So the last batch, which is not full, weighs what it has. */
#include "runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CLASSES = 4096 };                            /* of a confusion matrix: 128 MiB */

/* A label among the scores of all classes. place: how many classes come before it: those of larger scores, and of equal ones before it; all when its score is NaN. */
typedef struct { int64_t label, place, predicted; double nll; } seen;

static double of_top1(const seen *s) { return s->place < 1; }
static double of_top5(const seen *s) { return s->place < 5; }
static double of_nll(const seen *s) { return s->nll; }
static double exponential(double mean) { return exp(mean); }
static double itself(double mean) { return mean; }

static const struct {
  const char *name;
  int64_t classes;                                       /* that it wants at least */
  double (*of)(const seen *s);                           /* NULL: the matrix */
  double (*end)(double mean);
  bool share;
} table[TT_METRICS] = {
  {"top1", 1, of_top1, itself, true},
  {"top5", 5, of_top5, itself, true},
  {"perplexity", 1, of_nll, exponential, false},
  {"confusion", 1, NULL, NULL, false},
};

struct tt_metrics {
  bool wanted[TT_METRICS];
  double sum[TT_METRICS];
  int64_t count, classes;
  int64_t *confusion;                                    /* [classes, classes]: label, predicted */
  double *scores;                                        /* [classes], of one label */
};

const char *tt_metrics_name(int i) { return i >= 0 && i < TT_METRICS ? table[i].name : NULL; }

static int find(const char *name, size_t length) {
  for (int i = 0; i < TT_METRICS; i++)
    if (strlen(table[i].name) == length && !strncmp(table[i].name, name, length)) return i;
  return -1;
}

tt_metrics *tt_metrics_new(const char *names, tt_error *err) {
  tt_metrics *m = calloc(1, sizeof *m);
  if (!m) return tt_fail(err, TT_NO_MEMORY, "error: no memory for metrics\n  at tt_metrics_new\n  fix: free memory"), NULL;
  for (const char *p = names; ;) {
    p += strspn(p, " ");
    size_t length = strcspn(p, ", ");
    int i = find(p, length);
    const char *next = p + length + strspn(p + length, " ");
    if (i < 0 || (*next && *next != ',')) {
      char valid[200] = "";
      for (int k = 0; k < TT_METRICS; k++) snprintf(valid + strlen(valid), sizeof valid - strlen(valid), "%s%s", k ? ", " : "", table[k].name);
      tt_fail(err, TT_INVALID, "error: there is no metric \"%.*s\"\n  at \"%.200s\"\n  fix: name some of %s, with commas between them", (int)(length > 100 ? 100 : length), p, names, valid);
      tt_metrics_free(m);
      return NULL;
    }
    m->wanted[i] = true;
    if (!*next) return m;
    p = next + 1;
  }
}

void tt_metrics_free(tt_metrics *m) {
  if (!m) return;
  free(m->confusion);
  free(m->scores);
  free(m);
}

static double value(const tt_metrics *m, int i) { return m->wanted[i] && table[i].end && m->count ? table[i].end(m->sum[i] / (double)m->count) : NAN; }

double tt_metrics_value(const tt_metrics *m, const char *name) {
  int i = find(name, strlen(name));
  return !m || i < 0 ? NAN : value(m, i);
}

const int64_t *tt_metrics_confusion(const tt_metrics *m, int64_t *classes) {
  *classes = m->confusion ? m->classes : 0;
  return m->confusion;
}

int tt_metrics_text(const tt_metrics *m, char *text, size_t size) {
  size_t n = 0;
  if (size) *text = 0;
  for (int i = 0; m && i < TT_METRICS; i++) {
    double v = value(m, i);
    if (isnan(v)) continue;
    int more = snprintf(n < size ? text + n : NULL, n < size ? size - n : 0, table[i].share ? "  %s %.2f%%" : "  %s %.4g", table[i].name, table[i].share ? 100 * v : v);
    n += more > 0 ? (size_t)more : 0;
  }
  return (int)n;
}

/* For an evaluation over that many classes: all is zero. */
tt_status rt_metrics_begin(tt_metrics *m, int64_t classes, tt_error *err) {
  for (int i = 0; i < TT_METRICS; i++)
    if (m->wanted[i] && classes < table[i].classes)
      return tt_fail(err, TT_INVALID, "error: %s wants %lld classes, but the model has %lld\n  at the metrics of an evaluation\n  fix: leave %s out", table[i].name, (long long)table[i].classes, (long long)classes, table[i].name);
  bool matrix = m->wanted[find("confusion", strlen("confusion"))];
  if (matrix && classes > MOST_CLASSES)
    return tt_fail(err, TT_INVALID, "error: a confusion matrix of %lld classes is too large\n  at the metrics of an evaluation\n  fix: leave confusion out; it takes %d classes at most", (long long)classes, MOST_CLASSES);
  if (classes != m->classes) {
    free(m->confusion), free(m->scores);
    m->classes = classes;
    m->scores = malloc(sizeof *m->scores * (size_t)classes);
    m->confusion = matrix ? malloc(sizeof *m->confusion * (size_t)(classes * classes)) : NULL;
    if (!m->scores || (matrix && !m->confusion)) {
      m->classes = 0;
      return tt_fail(err, TT_NO_MEMORY, "error: no memory for metrics of %lld classes\n  at the metrics of an evaluation\n  fix: use a machine with more memory", (long long)classes);
    }
  }
  memset(m->sum, 0, sizeof m->sum);
  m->count = 0;
  if (m->confusion) memset(m->confusion, 0, sizeof *m->confusion * (size_t)(classes * classes));
  return TT_OK;
}

double *rt_metrics_scores(tt_metrics *m) { return m->scores; }

void rt_metrics_add(tt_metrics *m, int64_t label) {
  const double *v = m->scores, own = v[label];
  seen s = {.label = label};
  double sum = 0;
  for (int64_t c = 0; c < m->classes; c++) {
    if (c != label && (!(v[c] <= own) || (v[c] == own && c < label))) s.place++;
    if (v[c] > v[s.predicted] || (isnan(v[c]) && !isnan(v[s.predicted]))) s.predicted = c;
  }
  if (isnan(own)) s.place = m->classes;
  for (int64_t c = 0; c < m->classes; c++) sum += exp(v[c] - v[s.predicted]);
  s.nll = v[s.predicted] + log(sum) - own;
  for (int i = 0; i < TT_METRICS; i++)
    if (m->wanted[i] && table[i].of) m->sum[i] += table[i].of(&s);
  if (m->confusion) m->confusion[label * m->classes + s.predicted]++;
  m->count++;
}
