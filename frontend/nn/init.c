/* init.c: how parameters start. Element i of the parameter NAME under a seed is a function of these three alone: two elements come from
 * the Philox block of counter (i/2, hash of NAME), so that adding a layer, or declaring layers in another order, changes no other value. */
#include "../frontend.h"

#include <immintrin.h>

/* FNV-1a, 64 bits. */
static uint64_t hash_name(const char *name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
  return h;
}

enum { PIECE = 1 << 14, ROWS = 4 };

typedef struct {
  uint64_t seed, hash;
  bool drawn, normal;
  double low, width, std;         /* uniform in low .. low + width, or low + std * gauss */
  tt_dtype type;
  int64_t n;
  void *out;
} filling;

/* As vectors, so that a network of ten million weights starts in hundredths of a second. */
#ifdef __clang__                  /* it unrolls such loops anyway, and knows no such word */
#define EACH for (int i = 0; i < ROWS; i++)
#else
#define EACH _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++)
#endif

#define LANES 2
#define TARGET
#define MUL(x, y) (__typeof__(x))_mm_mul_epu32((__m128i)(x), (__m128i)(y))
#define SQRT(x) _mm_sqrt_pd(x)
#define FIRST(x, y) __builtin_shufflevector(x, y, 0, 2)
#define LAST(x, y) __builtin_shufflevector(x, y, 1, 3)
#define WIDE(name) name##_sse2
#include "draw.h"

#define LANES 4
#define TARGET __attribute__((target("avx2")))
#define MUL(x, y) (__typeof__(x))_mm256_mul_epu32((__m256i)(x), (__m256i)(y))
#define SQRT(x) _mm256_sqrt_pd(x)
#define FIRST(x, y) __builtin_shufflevector(x, y, 0, 4, 1, 5)
#define LAST(x, y) __builtin_shufflevector(x, y, 2, 6, 3, 7)
#define WIDE(name) name##_avx2
#include "draw.h"

/* Pieces in turn to each thread: an element's value is its own, so any division gives the same bits. */
static void fill_share(void *arg, int thread, int n_threads) {
  const filling *f = arg;
  bool wide = __builtin_cpu_supports("avx2");
  for (int64_t i = (int64_t)thread * PIECE; i < f->n; i += (int64_t)n_threads * PIECE) {
    int64_t end = f->n - i < PIECE ? f->n : i + PIECE;
    if (!f->drawn)
      for (int64_t k = i; k < end; k++) ir_store_double(f->type, f->out, k, f->low);
    else if (wide) fill_avx2(f, i, end);
    else fill_sse2(f, i, end);
  }
}

tt_status tt_init_fill(tt_init init, const char *name, uint64_t seed, tt_dtype t, const tt_shape *s, void *out, tt_error *err) {
  return init_fill(NULL, init, name, seed, t, s, out, err);
}

tt_status init_fill(rt_team *team, tt_init init, const char *name, uint64_t seed, tt_dtype t, const tt_shape *s, void *out, tt_error *err) {
  int64_t n = tt_shape_count(s);
  double fan_in = 1, fan_out = 1;
  for (int i = 0; i < s->rank; i++) {
    if (i != 0) fan_in *= (double)s->dim[i];
    if (i != 1) fan_out *= (double)s->dim[i];
  }
  bool normal = false;
  double low = 0, width = 0, std = 0;
  switch (init.kind) {
  case TT_INIT_DEFAULT: case TT_INIT_ZEROS: break;
  case TT_INIT_CONSTANT: low = init.a; break;
  case TT_INIT_UNIFORM: low = init.a, width = init.b - init.a; break;
  case TT_INIT_NORMAL: normal = true, low = init.a, std = init.b; break;
  case TT_INIT_XAVIER_UNIFORM: case TT_INIT_XAVIER_NORMAL: std = init.a * sqrt(2 / (fan_in + fan_out)); break;
  case TT_INIT_KAIMING_UNIFORM: case TT_INIT_KAIMING_NORMAL: std = sqrt(2 / ((1 + init.a * init.a) * fan_in)); break;
  case TT_INIT_DATA: memcpy(out, init.data, (size_t)n * tt_dtype_size(t)); return TT_OK;
  default:
    return tt_fail(err, TT_INVALID, "error: init_fill: there is no initializer %d\n  at the parameter %s\n  fix: make it with a tt_init_ function",
                   (int)init.kind, name);
  }
  if (init.kind == TT_INIT_XAVIER_UNIFORM || init.kind == TT_INIT_KAIMING_UNIFORM) low = -sqrt(3) * std, width = 2 * sqrt(3) * std;
  if (init.kind == TT_INIT_XAVIER_NORMAL || init.kind == TT_INIT_KAIMING_NORMAL) normal = true;
  filling f = {.seed = seed, .hash = hash_name(name), .drawn = normal || width != 0, .normal = normal, .low = low, .width = width, .std = std, .type = t, .n = n, .out = out};
  if (team && n > PIECE) rt_team_run(team, fill_share, &f);
  else fill_share(&f, 0, 1);
  return TT_OK;
}
