/* machine.c: what this CPU can do: arithmetic, memory, threads. Each figure is the best of a few short runs, because all that
 * disturbs a run makes it slower. The loops exist for 512, 256 and 128-bit vectors and cpuid chooses; compilation reads none of
 * these figures, so that the same program is made on a busy machine and on a quiet one. */
#define _GNU_SOURCE
#include "runtime.h"

#include <cpuid.h>
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLICE 0.012                                      /* seconds of one run, about */
enum { RUNS = 3, L1_BYTES = 12 << 10 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 12 sums hide the latency of two multiply-adds a cycle; each has one operand in memory. Gives a number, so that the work is needed. */
typedef double loop(const void *data, void *to, size_t bytes, int64_t rounds);
#define FMA_LOOP(NAME, TARGET, V, T, SET, LOAD, FMA, ADD)                                                                 \
  __attribute__((target(TARGET))) static double NAME(const void *data, void *to, size_t bytes, int64_t rounds) {          \
    enum { LANES = sizeof(V) / sizeof(T) };                                                                               \
    const T *x = data;                                                                                                    \
    const V a = SET((T)0.001);                                                                                            \
    V s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;                   \
    for (int64_t r = 0; r < rounds; r++)                                                                                  \
      for (size_t i = 0; i < bytes / sizeof(T); i += 12 * LANES) {                                                        \
        s0 = FMA(a, LOAD(x + i), s0); s1 = FMA(a, LOAD(x + i + LANES), s1); s2 = FMA(a, LOAD(x + i + 2 * LANES), s2);     \
        s3 = FMA(a, LOAD(x + i + 3 * LANES), s3); s4 = FMA(a, LOAD(x + i + 4 * LANES), s4); s5 = FMA(a, LOAD(x + i + 5 * LANES), s5); \
        s6 = FMA(a, LOAD(x + i + 6 * LANES), s6); s7 = FMA(a, LOAD(x + i + 7 * LANES), s7); s8 = FMA(a, LOAD(x + i + 8 * LANES), s8); \
        s9 = FMA(a, LOAD(x + i + 9 * LANES), s9); s10 = FMA(a, LOAD(x + i + 10 * LANES), s10); s11 = FMA(a, LOAD(x + i + 11 * LANES), s11); \
      }                                                                                                                   \
    s0 = ADD(ADD(ADD(s0, s1), ADD(s2, s3)), ADD(ADD(s4, s5), ADD(s6, s7)));                                               \
    s0 = ADD(s0, ADD(ADD(s8, s9), ADD(s10, s11)));                                                                        \
    T out[LANES];                                                                                                         \
    memcpy(out, &s0, sizeof out);                                                                                         \
    return (double)out[0] + (to != NULL);                                                                                 \
  }
/* What was read, as a number, so that reading is not for nothing. */
#define kept(v) (((const union { __typeof__(v) all; int first; }){v}).first)

/* Reads, or copies, bytes (a multiple of 8 vectors) of memory. */
#define AHEAD 1024                                       /* bytes between what is read and what is asked for */
/* Reads four places at once. ask(p): for a line that is needed soon. */
#define READ_PLACES(NAME, TARGET, V, LOAD, OR, ask)                                                                       \
  __attribute__((target(TARGET))) static double NAME(const void *data, void *to, size_t bytes, int64_t rounds) {          \
    const V *x = data;                                                                                                    \
    size_t quarter = bytes / sizeof(V) / 4 / 2 * 2;                                                                       \
    V s0 = LOAD(x), s1 = s0, s2 = s0, s3 = s0;                                                                            \
    for (int64_t r = 0; r < rounds; r++) {                                                                                \
      for (size_t i = 0; i < quarter; i += 2) {                                                                           \
        const V *a = x + i, *b = a + quarter, *c = b + quarter, *d = c + quarter;                                         \
        ask(a); ask(b); ask(c); ask(d);                                                                                   \
        s0 = OR(OR(s0, LOAD(a)), LOAD(a + 1)); s1 = OR(OR(s1, LOAD(b)), LOAD(b + 1));                                     \
        s2 = OR(OR(s2, LOAD(c)), LOAD(c + 1)); s3 = OR(OR(s3, LOAD(d)), LOAD(d + 1));                                     \
      }                                                                                                                   \
      for (size_t i = 4 * quarter; i < bytes / sizeof(V); i++) s0 = OR(s0, LOAD(x + i));                                  \
    }                                                                                                                     \
    return kept(OR(OR(s0, s1), OR(s2, s3)));                                                                              \
  }
#define ASK(p) _mm_prefetch((const char *)(p) + AHEAD, _MM_HINT_T0)
#define ASK_NOTHING(p) (void)(p)
#define MEMORY_LOOPS(BITS, TARGET, V, LOAD, STORE, STREAM, OR)                                                                    \
  __attribute__((target(TARGET))) static double read_##BITS(const void *data, void *to, size_t bytes, int64_t rounds) {   \
    const V *x = data;                                                                                                    \
    V s0 = LOAD(x), s1 = s0, s2 = s0, s3 = s0;                                                                            \
    for (int64_t r = 0; r < rounds; r++)                                                                                  \
      for (size_t i = 0; i < bytes / sizeof(V); i += 8) {                                                                 \
        s0 = OR(s0, LOAD(x + i)); s1 = OR(s1, LOAD(x + i + 1)); s2 = OR(s2, LOAD(x + i + 2)); s3 = OR(s3, LOAD(x + i + 3)); \
        s0 = OR(s0, LOAD(x + i + 4)); s1 = OR(s1, LOAD(x + i + 5)); s2 = OR(s2, LOAD(x + i + 6)); s3 = OR(s3, LOAD(x + i + 7)); \
      }                                                                                                                   \
    return kept(OR(OR(s0, s1), OR(s2, s3)));                                                                              \
  }                                                                                                                       \
  READ_PLACES(fetch_##BITS, TARGET, V, LOAD, OR, ASK)                                                                     \
  READ_PLACES(places_##BITS, TARGET, V, LOAD, OR, ASK_NOTHING)                                                            \
  __attribute__((target(TARGET))) static double copy_##BITS(const void *data, void *to, size_t bytes, int64_t rounds) {   \
    const V *x = data;                                                                                                    \
    V *y = to;                                                                                                            \
    for (int64_t r = 0; r < rounds; r++)                                                                                  \
      for (size_t i = 0; i < bytes / sizeof(V); i += 4) {                                                                 \
        V a = LOAD(x + i), b = LOAD(x + i + 1), c = LOAD(x + i + 2), d = LOAD(x + i + 3);                                 \
        STORE(y + i, a); STORE(y + i + 1, b); STORE(y + i + 2, c); STORE(y + i + 3, d);                                   \
        __asm__ volatile("" ::: "memory");               /* not to become a call of memcpy */                             \
      }                                                                                                                   \
    return 0;                                                                                                             \
  }                                                                                                                       \
  __attribute__((target(TARGET))) static double spread_##BITS(const void *data, void *to, size_t bytes, int64_t rounds) { \
    const V *x = data;                                   /* past the caches, in four places at once */                    \
    V *y = to;                                                                                                            \
    size_t quarter = bytes / sizeof(V) / 4 / 2 * 2;                                                                       \
    for (int64_t r = 0; r < rounds; r++) {                                                                                \
      for (size_t i = 0; i < quarter; i += 2)                                                                             \
        for (size_t k = i, n = 0; n < 4; n++, k += quarter) {                                                             \
          V a = LOAD(x + k), b = LOAD(x + k + 1);                                                                         \
          _mm_prefetch((const char *)(x + k) + AHEAD, _MM_HINT_T0);                                                       \
          STREAM(y + k, a); STREAM(y + k + 1, b);                                                                         \
        }                                                                                                                 \
      for (size_t i = 4 * quarter; i < bytes / sizeof(V); i++) STREAM(y + i, LOAD(x + i));                                \
    }                                                                                                                     \
    _mm_sfence();                                                                                                         \
    return 0;                                                                                                             \
  }                                                                                                                       \
  __attribute__((target(TARGET))) static double stream_##BITS(const void *data, void *to, size_t bytes, int64_t rounds) { \
    const V *x = data;                                   /* past the caches: what is written is not read first */         \
    V *y = to;                                                                                                            \
    for (int64_t r = 0; r < rounds; r++)                                                                                  \
      for (size_t i = 0; i < bytes / sizeof(V); i += 4) {                                                                 \
        V a = LOAD(x + i), b = LOAD(x + i + 1), c = LOAD(x + i + 2), d = LOAD(x + i + 3);                                 \
        STREAM(y + i, a); STREAM(y + i + 1, b); STREAM(y + i + 2, c); STREAM(y + i + 3, d);                               \
      }                                                                                                                   \
    _mm_sfence();                                                                                                         \
    return 0;                                                                                                             \
  }
static double copy_libc(const void *data, void *to, size_t bytes, int64_t rounds) {
  for (int64_t r = 0; r < rounds; r++) {
    memcpy(to, data, bytes);
    __asm__ volatile("" ::: "memory");
  }
  return 0;
}
#define MUL_ADD_PS(a, b, c) _mm_add_ps(_mm_mul_ps(a, b), c)
#define MUL_ADD_PD(a, b, c) _mm_add_pd(_mm_mul_pd(a, b), c)
FMA_LOOP(f32_512, "avx512f", __m512, float, _mm512_set1_ps, _mm512_load_ps, _mm512_fmadd_ps, _mm512_add_ps)
FMA_LOOP(f64_512, "avx512f", __m512d, double, _mm512_set1_pd, _mm512_load_pd, _mm512_fmadd_pd, _mm512_add_pd)
FMA_LOOP(f32_256, "avx2,fma", __m256, float, _mm256_set1_ps, _mm256_load_ps, _mm256_fmadd_ps, _mm256_add_ps)
FMA_LOOP(f64_256, "avx2,fma", __m256d, double, _mm256_set1_pd, _mm256_load_pd, _mm256_fmadd_pd, _mm256_add_pd)
FMA_LOOP(f32_128, "sse2", __m128, float, _mm_set1_ps, _mm_load_ps, MUL_ADD_PS, _mm_add_ps)
FMA_LOOP(f64_128, "sse2", __m128d, double, _mm_set1_pd, _mm_load_pd, MUL_ADD_PD, _mm_add_pd)
MEMORY_LOOPS(512, "avx512f", __m512i, _mm512_load_si512, _mm512_store_si512, _mm512_stream_si512, _mm512_or_si512)
MEMORY_LOOPS(256, "avx2", __m256i, _mm256_load_si256, _mm256_store_si256, _mm256_stream_si256, _mm256_or_si256)
MEMORY_LOOPS(128, "sse2", __m128i, _mm_load_si128, _mm_store_si128, _mm_stream_si128, _mm_or_si128)

typedef struct { const char *name; loop *f32, *f64, *read, *fetch, *places, *copy, *stream, *spread; } level;
/* Of at most so many bytes; 0: the widest there are. */
static level choose(size_t widest) {
  if ((widest == 0 || widest >= 64) && __builtin_cpu_supports("avx512f")) return (level){"512-bit FMA", f32_512, f64_512, read_512, fetch_512, places_512, copy_512, stream_512, spread_512};
  if ((widest == 0 || widest >= 32) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (level){"256-bit FMA", f32_256, f64_256, read_256, fetch_256, places_256, copy_256, stream_256, spread_256};
  return (level){"128-bit multiply, then add", f32_128, f64_128, read_128, fetch_128, places_128, copy_128, stream_128, spread_128};
}

/* A loop run by some threads, each on memory of its own. */
typedef struct { loop *f; size_t bytes; int64_t rounds; char **from, **to; volatile double sink; } job;

static void run(void *arg, int thread, int n_threads) {
  job *j = arg;
  (void)n_threads;
  double result = j->f(j->from[thread], j->to[thread], j->bytes, j->rounds);
  if (thread == 0) j->sink = result;
}
static void touch(void *arg, int thread, int n_threads) {                    /* pages are given by whoever writes first */
  job *j = arg;
  (void)n_threads;
  memset(j->from[thread], 0, j->bytes);
  memset(j->to[thread], 0, j->bytes);
}

static double timed(job *j, rt_team *team) {             /* team NULL: this thread alone */
  double start = now();
  if (team) rt_team_run(team, run, j);
  else run(j, 0, 1);
  return now() - start;
}

/* Rounds a second. */
static double rate(job *j, rt_team *team) {
  j->rounds = 1;
  timed(j, team);
  for (double t; (t = timed(j, team)) < SLICE / 4 && j->rounds < (int64_t)1 << 40;) j->rounds = t * 20 < SLICE ? j->rounds * 8 : j->rounds * 2;
  double best = 0;
  for (int i = 0; i < RUNS; i++) {
    double r = (double)j->rounds / timed(j, team);
    if (r > best) best = r;
  }
  return best;
}

/* Two blocks for each of n threads, in one piece of huge pages: how small pages happen to lie in the caches would count otherwise. The second block
 * does not begin where the first does in a page: stores would be taken for loads of the other. false: no memory. */
static size_t job_bytes(const job *j) {
  size_t both = 2 * j->bytes + 1088, huge = (size_t)2 << 20;
  return both > huge ? both : huge;
}
static bool job_memory(job *j, rt_team *team, size_t bytes) {
  int n = rt_team_size(team);
  bool ok = (j->from = calloc((size_t)n, sizeof *j->from)) && (j->to = calloc((size_t)n, sizeof *j->to));
  j->bytes = bytes;
  for (int i = 0; ok && i < n; i++) {
    ok = (j->from[i] = rt_alloc(job_bytes(j)));
    if (ok) j->to[i] = j->from[i] + (bytes + 63) / 64 * 64 + 1024;
  }
  if (ok) rt_team_run(team, touch, j);
  return ok;
}
static void job_free(job *j, rt_team *team) {
  for (int i = 0; j->from && i < rt_team_size(team); i++) rt_free(j->from[i], job_bytes(j));
  free(j->from);
  free(j->to);
}

enum { WAYS = 4 };                 /* of doing the same: the best counts */
struct rt_meter { rt_team *team; job j; loop *loops[WAYS]; int64_t rounds[WAYS]; double per_round; };

rt_meter *rt_meter_new(rt_meter_kind kind, size_t bytes, rt_team *team, tt_error *err) {
  level l = choose(kind == RT_METER_FMA ? bytes : 0);
  size_t n = (size_t)rt_team_size(team), own = kind == RT_METER_FMA ? L1_BYTES : bytes / n / (kind == RT_METER_COPY ? 2 : 1);
  if (kind != RT_METER_FMA) own = own < 4096 ? 4096 : own / 512 * 512;
  rt_meter *m = calloc(1, sizeof *m);
  if (m && job_memory(&m->j, team, own)) {
    m->team = team;
    m->loops[0] = kind == RT_METER_FMA ? l.f32 : kind == RT_METER_READ ? l.read : l.copy;
    m->loops[1] = kind == RT_METER_COPY ? l.stream : kind == RT_METER_READ ? l.fetch : NULL;
    m->loops[2] = kind == RT_METER_COPY ? copy_libc : kind == RT_METER_READ ? l.places : NULL;
    m->loops[3] = kind == RT_METER_COPY ? l.spread : NULL;
    m->per_round = (double)n * (kind == RT_METER_FMA ? 2.0 * L1_BYTES / sizeof(float) : (double)own * (kind == RT_METER_COPY ? 2 : 1));
    return m;
  }
  if (m) job_free(&m->j, team);
  free(m);
  tt_fail(err, TT_NO_MEMORY, "error: no memory to measure the machine\n  at rt_meter_new of %zu bytes\n  fix: measure smaller blocks", bytes);
  return NULL;
}

void rt_meter_free(rt_meter *m) {
  if (m) job_free(&m->j, m->team);
  free(m);
}

/* How many rounds take about a quarter slice is found once. */
double rt_meter_sample(rt_meter *m) {
  double best = 0;
  for (int i = 0; i < WAYS && m->loops[i]; i++) {
    job *j = &m->j;
    j->f = m->loops[i];
    bool known = m->rounds[i] > 0;
    j->rounds = 1;
    timed(j, m->team);                                   /* the caches hold what others left there */
    if (known) j->rounds = m->rounds[i];
    double t = timed(j, m->team);
    for (; !known && t < SLICE / 4 && j->rounds < (int64_t)1 << 40; t = timed(j, m->team)) j->rounds = t * 20 < SLICE ? j->rounds * 8 : j->rounds * 2;
    m->rounds[i] = j->rounds;
    double rate = (double)j->rounds / t * m->per_round;
    if (rate > best) best = rate;
  }
  return best;
}

double rt_machine_peak_f32(rt_team *team) {
  rt_meter *m = rt_meter_new(RT_METER_FMA, 0, team, NULL);
  double best = 0;
  for (int i = 0; m && i < RUNS + 1; i++) {
    double rate = rt_meter_sample(m);
    if (rate > best) best = rate;
  }
  rt_meter_free(m);
  return best;
}

typedef struct { rt_team *team; void (*line)(void *user, const char *text); void *user; } output;

/* "name   value unit (1 thread)  value (n threads)"; per_round: units of a round of one thread. */
static void print_rates(const output *o, const char *name, loop *f, const char *unit, size_t bytes, double per_round) {
  job j = {.f = f};
  char text[200];
  int n = rt_team_size(o->team);
  if (job_memory(&j, o->team, bytes)) {
    double one = rate(&j, NULL) * per_round, all = n > 1 ? rate(&j, o->team) * per_round * n : 0;
    int at = snprintf(text, sizeof text, "%-44s %7.1f %s (1 thread)", name, one, unit);
    if (n > 1) snprintf(text + at, sizeof text - (size_t)at, "  %.1f (%d threads)", all, n);
  } else snprintf(text, sizeof text, "%-44s no memory to measure it", name);
  o->line(o->user, text);
  job_free(&j, o->team);
}

static void describe_cpu(const output *o) {
  unsigned a, b, c, d, one_c = 0, seven_b = 0, seven_c = 0, seven_d = 0, more_a = 0, brand[13] = {0};
  char text[400];
  for (unsigned i = 0; i < 3; i++)
    if (!__get_cpuid(0x80000002 + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2], &brand[4 * i + 3])) brand[0] = 0;
  const char *name = (const char *)brand;
  while (*name == ' ') name++;
  snprintf(text, sizeof text, "CPU: %s, %d threads in the team", *name ? name : "unknown", rt_team_size(o->team));
  o->line(o->user, text);
  if (__get_cpuid(1, &a, &b, &c, &d)) one_c = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) seven_b = b, seven_c = c, seven_d = d;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) more_a = a;
  const struct { const char *name; unsigned has; } features[] = {
    {"sse4.2", one_c >> 20 & 1}, {"avx", one_c >> 28 & 1}, {"f16c", one_c >> 29 & 1}, {"fma", one_c >> 12 & 1}, {"avx2", seven_b >> 5 & 1}, {"avx512f", seven_b >> 16 & 1}, {"avx512bw", seven_b >> 30 & 1},
    {"avx512vl", seven_b >> 31}, {"avx512-vnni", seven_c >> 11 & 1}, {"avx-vnni", more_a >> 4 & 1}, {"avx512-bf16", more_a >> 5 & 1}, {"avx512-fp16", seven_d >> 23 & 1}, {"amx-tile", seven_d >> 24 & 1},
    {"amx-bf16", seven_d >> 22 & 1}, {"amx-int8", seven_d >> 25 & 1},
  };
  int n = snprintf(text, sizeof text, "features:");
  for (size_t i = 0; i < sizeof features / sizeof *features; i++)
    if (features[i].has) n += snprintf(text + n, sizeof text - (size_t)n, " %s", features[i].name);
  o->line(o->user, text);
}

/* The caches' sizes, in bytes; 0: none or unknown. */
static void cache_sizes(int64_t size[3]) {
  size[0] = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  size[1] = sysconf(_SC_LEVEL2_CACHE_SIZE);
  size[2] = sysconf(_SC_LEVEL3_CACHE_SIZE);
  for (int i = 0; i < 3; i++)
    if (size[i] < 0) size[i] = 0;
}

static void nothing(void *arg, int thread, int n_threads) { (void)arg, (void)thread, (void)n_threads; }
typedef struct { rt_team *team; int rounds; } meeting;
static void meet(void *arg, int thread, int n_threads) {
  meeting *m = arg;
  (void)n_threads;
  for (int i = 0; i < m->rounds; i++) rt_team_barrier(m->team, thread);
}
static int ascending(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static void print_team(const output *o) {
  enum { CALLS = 500, WAKES = 25 };
  char text[200];
  int n = rt_team_size(o->team);
  if (n == 1) return;
  meeting m = {o->team, CALLS};
  double barrier = 1e9, call = 1e9, wakes[WAKES];
  for (int i = 0; i < RUNS; i++) {
    double start = now();
    rt_team_run(o->team, meet, &m);
    double middle = now();
    for (int k = 0; k < CALLS; k++) rt_team_run(o->team, nothing, NULL);
    double end = now();
    if (middle - start < barrier) barrier = middle - start;
    if (end - middle < call) call = end - middle;
  }
  for (int i = 0; i < WAKES; i++) {
    nanosleep(&(struct timespec){0, 500000}, NULL);      /* workers sleep after 50 us */
    double start = now();
    rt_team_run(o->team, nothing, NULL);
    wakes[i] = now() - start;
  }
  qsort(wakes, WAKES, sizeof *wakes, ascending);
  snprintf(text, sizeof text, "%-44s %7.2f us (%d threads)", "barrier", barrier / CALLS * 1e6, n);
  o->line(o->user, text);
  snprintf(text, sizeof text, "%-44s %7.2f us (%d threads)", "call of a spinning team, until all are done", call / CALLS * 1e6, n);
  o->line(o->user, text);
  snprintf(text, sizeof text, "%-44s %7.2f us (%d threads)", "call of a sleeping team, until all are done", wakes[WAKES / 2] * 1e6, n);
  o->line(o->user, text);
}

void rt_machine_report(rt_team *team, void (*line)(void *user, const char *text), void *user) {
  output o = {team, line, user};
  level l = choose(0);
  char text[200], name[60];
  int64_t size[3];
  describe_cpu(&o);
  cache_sizes(size);
  snprintf(text, sizeof text, "caches: L1d %lld KiB, L2 %lld KiB, L3 %lld KiB", (long long)size[0] >> 10, (long long)size[1] >> 10, (long long)size[2] >> 10);
  line(user, text);
  snprintf(text, sizeof text, "vectors measured: %s", l.name);
  line(user, text);
  print_rates(&o, "f32 FMA, one operand from L1", l.f32, "GFLOP/s", L1_BYTES, 2e-9 * L1_BYTES / sizeof(float));
  print_rates(&o, "f64 FMA, one operand from L1", l.f64, "GFLOP/s", L1_BYTES, 2e-9 * L1_BYTES / sizeof(double));
  /* A thread's share of each level; a copy needs it twice. DRAM: more than a core's caches, shared among the team. */
  size_t dram = ((size_t)128 << 20) / (size_t)rt_team_size(team);
  if (dram < (size_t)8 << 20) dram = (size_t)8 << 20;
  const struct { const char *level; size_t bytes; } places[] = {{"L1", L1_BYTES}, {"L2", size[1] ? (size_t)size[1] * 3 / 8 : 0}, {"L3", size[2] > size[1] ? (size_t)4 << 20 : 0}, {"DRAM", dram}};
  for (int i = 0; i < 4; i++) {
    size_t bytes = places[i].bytes / 4096 * 4096;
    if (!bytes) continue;
    snprintf(name, sizeof name, "%s read, %zu KiB a thread", places[i].level, bytes >> 10);
    print_rates(&o, name, l.read, "GB/s", bytes, 1e-9 * (double)bytes);
    bytes = bytes / 2 / 4096 * 4096;
    snprintf(name, sizeof name, "%s copy, %zu KiB a thread to as many", places[i].level, bytes >> 10);
    print_rates(&o, name, l.copy, "GB/s copied", bytes, 1e-9 * (double)bytes);
  }
  print_team(&o);
}
