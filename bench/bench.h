/* bench.h: timing, and what makes a time a figure: medians with intervals, taken by turns, against a bound.
 *
 * A workload (workloads.c) is a name of the scheme of ../shared/peers/workloads.py. Whatever can run it is a side: our own program
 * (ours.c), another framework in a process of its own (peer.c), a BLAS (blas.c). The sides of a workload take turns (turns.c); between
 * the turns the machine itself is measured (ruler.c). What comes of it is a run of rows (rows.c): a table, JSON, plots, a comparison. */
#ifndef TT_BENCH_H
#define TT_BENCH_H

#include <jansson.h>

#include "../frontend/cli/cli.h"
#include "../ir/ir.h"
#include "../runtime/runtime.h"

double bench_now(void);                                      /* seconds */
double bench_random(uint64_t *state);                        /* 0 .. 1 */

/* stats.c. low, high: 95% bootstrap interval of the median. */
typedef struct { double median, low, high, best; int n; } bench_stat;
bench_stat bench_stats(const double *samples, int n);
/* Of median(a) / median(b), both resampled by themselves. */
bench_stat bench_ratio(const double *a, int n_a, const double *b, int n_b);

/* Floating-point operations of one training step of this network: products and convolutions, forward and both gradients, less the
 * gradient for the network's input, which nobody needs. g: a forward trace. */
double bench_train_flops(const ir_graph *g);

/* -- workloads.c ------------------------------------------------------------------------------------------------------------ */

typedef struct bench_family bench_family;
typedef struct { char name[120]; const bench_family *family; int64_t size[8]; int n; bool causal; } bench_workload;

struct bench_family {
  const char *kind, *what, *sizes;       /* sizes: "MxNxK"; a part in [] may be left out; "bN" of models */
  double (*flops)(const bench_workload *w);    /* of products and convolutions, direct; NULL: bound by memory */
  double transfers;                      /* of the tensor, bound by memory; 0: by arithmetic */
  const char *peers;                     /* "torch jax ..."; NULL: no other framework has it */
  void (*trace)(tt_trace *t, const bench_workload *w);      /* NULL: not in the language yet */
  const char *hyper, *optimizer;         /* of training; NULL: sgd */
  const char *skip;                      /* passes left out */
  int64_t grain;                         /* elements of a task; 0: as the cost model says */
  tt_model_fn *model; int64_t classes;   /* of "decode" */
};
extern const bench_family bench_families[];        /* ends with a NULL kind */
extern const char *const bench_op_names[], *const bench_model_names[], *const bench_compile_names[], *const bench_memory_names[], *const bench_budget_names[];   /* what is timed when none is named */

bool bench_parse(const char *name, bench_workload *w, tt_error *err);      /* "op." may be left out */
double bench_flops(const bench_workload *w);
double bench_bytes(const bench_workload *w);
int64_t bench_context(const bench_workload *w);              /* of "decode": how many tokens are there already */

/* -- ruler.c: the machine, measured while the run goes on ------------------------------------------------------------------- */

typedef struct { unsigned char mask[128]; bool known; } bench_cores;      /* a cpu_set_t */
typedef struct {
  bench_cores inherited;
  rt_team *team;
  rt_meter *fma;
  double peak;                           /* FLOP/s, the best so far */
  int n_peaks;
  double quiet;                          /* seconds of the pinned loop, the best so far */
  double *probes; int n_probes, cap_probes;      /* of the present row */
} bench_ruler;
rt_team *bench_pinned_team(int threads, bench_cores *inherited, tt_error *err);      /* on the lowest cores, as peers are; this thread on the first */
void bench_unpin(const bench_cores *inherited);    /* also in a child, before it becomes a peer */
void bench_keep_to(const bench_cores *inherited, int n);     /* this thread, to the lowest n of them */
bool bench_ruler_open(bench_ruler *r, int threads, const char *cpu, tt_error *err);      /* cpu: whose vectors the peak is of; NULL: native */
void bench_ruler_close(bench_ruler *r);
void bench_ruler_row(bench_ruler *r);              /* a row begins */
void bench_ruler_look(bench_ruler *r);             /* between turns: peak and quiet */
double bench_ruler_noise(const bench_ruler *r);    /* share of the row's probes that took 5% longer than the best of the run */

/* -- sides ------------------------------------------------------------------------------------------------------------------- */

typedef struct bench_side bench_side;
struct bench_side {
  char framework[40], version[60], error[400];     /* error: why it has no figures; a side with an error is not run */
  bool (*run)(bench_side *s, int n, double *ms);   /* n times in ms; false: error is set */
  void (*close)(bench_side *s);
  void *self;
  double once;                                     /* ms, about */
  double flops, bytes;                             /* what the other side says of the workload; 0, 0: nothing */
  double *ms; int n_ms, cap_ms;                    /* samples */
};
void bench_side_close(bench_side *s);

/* ours.c */
typedef struct { const char *cpu, *skip, *tuned, *products; int64_t memory_budget; } bench_target;      /* tuned NULL: without measured plans; memory_budget 0: none */
bool bench_target_of(const cli_args *a, bench_target *t);    /* --cpu --skip --tuned --dtype --matmul-precision --memory-budget; false: a wrong word */
bool bench_ours(bench_side *s, const bench_workload *w, rt_team *team, const bench_target *o, tt_error *err);
/* Bytes of inputs, outputs and parameters, each once; of all that the program needs, and of its arena; whether a kernel works by Winograd's algorithm. */
typedef struct { double in, out, params, plan, arena; bool winograd; uint32_t kernels; double compile_ms; } bench_facts;
bench_facts bench_ours_facts(const bench_side *s);

/* decode.c */
bool bench_decode(bench_side *s, const bench_workload *w, const bench_ruler *r, const bench_target *t, tt_error *err);

/* child.c: `bench start WORKLOAD` in a process of its own, whose line of JSON is given; *started: when, of bench_now. The on-disk cache is in the
 * folder `cache`; budget: of memory, 0: none. */
int bench_start(const cli_args *a);
json_t *bench_child(const cli_args *a, const char *workload, int threads, int steps, int64_t budget, const char *cache, double *started, tt_error *err);

/* peer.c: `folder`/peer FRAMEWORK WORKLOAD --serve. start begins, ready waits for its first line. */
bool bench_peer_start(bench_side *s, const char *folder, const char *framework, const char *workload, int threads, const bench_cores *cores);
bool bench_peer_ready(bench_side *s, double seconds);
double bench_peers_patience(const cli_args *a);              /* --patience */
double bench_peer_figure(const bench_side *s, const char *key);       /* of its first line; 0: none */

/* blas.c */
bool bench_blas(bench_side *s, const char *file, const bench_workload *w, int threads);

const char *bench_peers_folder(const cli_args *a);           /* --peers; NULL: not given */
bool bench_framework_wanted(const cli_args *a, const char *framework);      /* --frameworks */
/* Starts those that have the workload and are wanted into sides; how many. */
int bench_peers_start(const cli_args *a, const bench_workload *w, int threads, const bench_cores *cores, bench_side *sides, int most);

/* -- turns.c ----------------------------------------------------------------------------------------------------------------- */

typedef struct { double seconds; bool others; } bench_patience;      /* for each side; whether there are other processes, which spin for a while */
/* Runs the sides by turns until each has been measured for so long. Fills their samples. between: called between turns. */
void bench_turns(bench_side *sides, int n, const bench_patience *p, bench_ruler *r, void (*between)(void *user), void *user);

/* -- rows.c: what comes of it, as JSON (the one form that is printed, plotted and compared) ----------------------------------- */

/* run: {"what", "schema", "date", "machine": {}, "versions": {}, "threads", "peak_gflops", "peak_samples", "rows": [row]}
 * row: {"workload", "flops", "bytes", "threads", "bound_ms", "bound": "peak"|"copy"|"read"|"none", "noise", "quiet", "winograd", "results": [result]}
 *      or, of what passes or fails: {"workload", "threads", "item", "met", "figure", "bar"}
 * result: {"framework", "version", "median_ms", "low_ms", "high_ms", "best_ms", "runs", "samples": [ms]} or {"framework", "error"} */
json_t *bench_run_new(const char *what, int threads, const char *cpu);       /* cpu: compiled for; NULL: native */
void bench_run_finish(json_t *run, const bench_ruler *r);                   /* bounds by the final peak; versions */
json_t *bench_row_new(const bench_workload *w, const bench_side *sides, int n);     /* the first side is ours */
/* The bound of a row in ms, by this peak; 0: it has none. */
double bench_row_bound(const json_t *row, double peak_gflops);
const json_t *bench_row_best(const json_t *row);                            /* the fastest result that is not ours; NULL: none */
void bench_row_print(const json_t *row, double peak_gflops);
/* How many rows are over 100% of the peak by a direct method, or clearly over what memory was measured to give; each is printed on stderr. */
int bench_over_peak(const json_t *run);
double bench_number(const json_t *object, const char *key);                 /* 0 when it is not there */
const char *bench_text(const json_t *object, const char *key);              /* "" when it is not there */

/* -- commands ---------------------------------------------------------------------------------------------------------------- */

enum { BENCH_MOST_NAMES = 256, BENCH_MOST_SIDES = 24 };
/* The workloads that the command names: each by its whole name, or by the beginning of usual ones; none named: all usual ones. -1: err. */
int bench_names(const cli_args *a, const char *const *usual, bench_workload *w, tt_error *err);
int bench_figures(const cli_args *a, bool models);           /* figures.c: ops, models */
int bench_costs(const cli_args *a, bool memory);             /* costs.c: compile, memory */
int bench_budget(const cli_args *a);                         /* budget.c */
int bench_program(const cli_args *a);                        /* program.c */
bool bench_temporary(char *folder, size_t size, tt_error *err);             /* costs.c: a new folder; and away with it and what is in it */
void bench_remove_folder(const char *path);
int bench_steps(const cli_args *a, bool kernels);            /* jit_vs_interp.c: jit-vs-interp, kernels */
int bench_finish(const cli_args *a, const json_t *run, tt_error *err);       /* --json, --svg, --compare; 1: it regressed, or err */

/* bars.c. item: of issue 4's list, "The limit"; from BENCH_MODERN on of issue 5's, "Modern networks"; 0: nothing is asked of this row. */
enum { BENCH_MODERN = 20 };
typedef struct { int item; bool met; char figure[160], bar[160]; const char *limit; } bench_verdict;
bench_verdict bench_judge(const json_t *run, const json_t *row);
double bench_blas_mean(const json_t *run, int *n);           /* geometric mean over n products of the best BLAS's time over ours; 0: none */
int bench_verdicts(const cli_args *a), bench_report(const cli_args *a);      /* report.c: verdict, report */

char *bench_svg(const json_t *run);                          /* plot.c; malloc'ed; NULL: no memory */
/* compare.c: prints row by row; how many results are slower than in the older run. path: of that. */
int bench_compare(const json_t *old, const json_t *run, const char *path, tt_error *err);
json_t *bench_load(const char *path, tt_error *err);

#endif
