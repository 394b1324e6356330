/* stats.c: medians with 95% bootstrap intervals (Efron 1979: resample with replacement, take the middle 95% of the medians), and the
 * work of a network counted on its graph. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

double bench_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double bench_random(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 40) / 16777216.0;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median_of(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, by_value);
  return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

enum { RESAMPLES = 1000 };

/* The median of n samples drawn with replacement. */
static double resampled(const double *samples, int n, double *copy, uint64_t *state) {
  for (int i = 0; i < n; i++) copy[i] = samples[(size_t)(bench_random(state) * n)];
  return median_of(copy, n);
}

/* b NULL: of a alone. */
static bench_stat bootstrap(const double *a, int n_a, const double *b, int n_b) {
  bench_stat s = {.n = n_a};
  int most = n_a > n_b ? n_a : n_b;
  double *copy = malloc((size_t)(most + 1) * sizeof *copy), *medians = malloc(RESAMPLES * sizeof *medians);
  if (n_a > 0 && (!b || n_b > 0) && copy && medians) {
    memcpy(copy, a, (size_t)n_a * sizeof *copy);
    s.median = median_of(copy, n_a), s.best = copy[0];
    if (b) {
      memcpy(copy, b, (size_t)n_b * sizeof *copy);
      s.median /= median_of(copy, n_b), s.best /= copy[0];
    }
    uint64_t state = 1;
    for (int r = 0; r < RESAMPLES; r++) {
      medians[r] = resampled(a, n_a, copy, &state);
      if (b) medians[r] /= resampled(b, n_b, copy, &state);
    }
    qsort(medians, RESAMPLES, sizeof *medians, by_value);
    s.low = medians[RESAMPLES * 25 / 1000], s.high = medians[RESAMPLES * 975 / 1000 - 1];
  }
  free(copy);
  free(medians);
  return s;
}

bench_stat bench_stats(const double *samples, int n) { return bootstrap(samples, n, NULL, 0); }
bench_stat bench_ratio(const double *a, int n_a, const double *b, int n_b) { return bootstrap(a, n_a, b, n_b); }

double bench_train_flops(const ir_graph *g) {
  bool *live = ir_live(g), *trained = calloc(g->n_nodes, sizeof *trained);       /* trained: depends on a param */
  double forward = 0, unneeded = 0;
  for (ir_ref r = 1; live && trained && r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    trained[r] = n->op == IR_param && ir_int(n, "trainable");
    for (uint32_t i = 0; i < n->n_args; i++) trained[r] |= trained[n->args[i]];
    if (!live[r] || (n->op != IR_matmul && n->op != IR_conv)) continue;
    const ir_node *a = ir_at(g, n->args[0]), *b = ir_at(g, n->args[1]);
    tt_shape out = ir_shape(g, r);
    double sum = 1;
    if (n->op == IR_matmul) sum = (double)a->dim[a->rank - (ir_int(n, "ta") ? 2 : 1)];
    else
      for (int i = 2; i < b->rank; i++) sum *= (double)b->dim[i];
    double flops = 2 * sum * (double)tt_shape_count(&out);
    forward += flops;
    if (!trained[n->args[0]] || !trained[n->args[1]]) unneeded += flops;
  }
  free(live);
  free(trained);
  return 3 * forward - unneeded;
}
