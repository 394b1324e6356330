/* init.c: how parameters start. Element i of the parameter NAME under a seed is a function of these three alone: two elements come from
 * the Philox block of counter (i/2, hash of NAME), so that adding a layer, or declaring layers in another order, changes no other value. */
#include "../frontend.h"

/* FNV-1a, 64 bits. */
static uint64_t hash_name(const char *name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
  return h;
}

/* Blocks are drawn BLOCKS side by side, each step of the computation a loop over all of them without branches, so that it fills vectors: a
 * network of ten million weights starts in hundredths of a second. Rounding is the same for every width of vectors (no multiply-add is
 * contracted), so AVX2 gives the bits of SSE2. */
enum { BLOCKS = 32, DRAWN = 2 * BLOCKS, PIECE = 1 << 14 };   /* loops of 16 steps are unrolled before they become vectors */
#ifdef __clang__                  /* it makes vectors of loops anyway, and knows no such word */
#define VECTORIZED
#else
#define VECTORIZED optimize("O3", "no-trapping-math"),
#endif
#define EACH for (int i = 0; i < BLOCKS; i++)

typedef union { double d[BLOCKS]; uint64_t u[BLOCKS]; } lanes;

typedef struct {
  uint64_t seed, hash;
  bool drawn, normal;
  double low, width, std;         /* uniform in low .. low + width, or low + std * gauss */
  tt_dtype type;
  int64_t n;
  void *out;
} filling;

/* For integers under 2^52, as vectors have no conversion of 64-bit integers before AVX-512. */
static inline __attribute__((always_inline)) void to_double(lanes *x) {
  EACH x->u[i] |= 0x4330000000000000;
  EACH x->d[i] -= 0x1p52;
}

/* 53 random bits in (0, 1). */
static inline __attribute__((always_inline)) void unit(const uint32_t *high, const uint32_t *low, lanes *x) {
  lanes y;
  EACH x->u[i] = high[i], y.u[i] = low[i] >> 11;
  to_double(x), to_double(&y);
  EACH x->d[i] = (x->d[i] * 0x1p21 + y.d[i] + 0.5) * 0x1p-53;
}

/* tt_philox of BLOCKS counters from `first` on: two numbers in (0, 1) of each. */
static inline __attribute__((always_inline)) void draw(uint64_t seed, uint64_t name, uint64_t first, lanes *a, lanes *b) {
  uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS], k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  EACH c0[i] = (uint32_t)(first + (uint64_t)i), c1[i] = (uint32_t)((first + (uint64_t)i) >> 32), c2[i] = (uint32_t)name, c3[i] = (uint32_t)(name >> 32);
  for (int round = 0; round < 10; round++) {
    EACH {
      uint64_t p0 = (uint64_t)c0[i] * 0xD2511F53, p1 = (uint64_t)c2[i] * 0xCD9E8D57;
      uint32_t x = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0, y = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
      c0[i] = x, c1[i] = (uint32_t)p1, c2[i] = y, c3[i] = (uint32_t)p0;
    }
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  unit(c0, c1, a), unit(c2, c3, b);
}

/* Two of (0, 1) become two of N(0, 1) (Box & Muller 1958). The logarithm, sine and cosine are fdlibm's, each within an ulp. */
static inline __attribute__((always_inline)) void gauss(lanes *a, lanes *b) {
  lanes k, q;
  double r[BLOCKS];
  EACH {                                          /* a = 2^(k - 1023) m, m in sqrt(1/2) .. sqrt(2) */
    k.u[i] = (a->u[i] - 0x3fe6a09e667f3bcd + (1023ull << 52)) >> 52;
    a->u[i] += (1023ull << 52) - (k.u[i] << 52);
  }
  to_double(&k);
  EACH {
    double f = a->d[i] - 1, half = 0.5 * f * f, s = f / (2 + f), z = s * s, w = z * z;
    double odd = z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    double even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)), e = k.d[i] - 1023;
    double log_a = e * 6.93147180369123816490e-01 - ((half - (s * (half + odd + even) + e * 1.90821492927058770002e-10)) - f);
    r[i] = __builtin_sqrt(-2 * log_a);
  }
  EACH {                                          /* the angle 2 pi b = t + q pi/2, t in -pi/4 .. pi/4 */
    double turned = 4 * b->d[i] + 0x1p52, t = (b->d[i] - (turned - 0x1p52) * 0.25) * 6.28318530717958647693, z = t * t;
    q.d[i] = turned;
    double sine = t + t * z * (-1.66666666666666324348e-01 + z * (8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
    double cosine = 1 - (0.5 * z - z * z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * (2.48015872894767294178e-05 + z * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))))));
    a->d[i] = cosine, b->d[i] = sine;
  }
  EACH {
    uint64_t swapped = (0 - (q.u[i] & 1)) & (a->u[i] ^ b->u[i]);
    a->u[i] ^= swapped ^ ((q.u[i] + 1) & 2) << 62, b->u[i] ^= swapped ^ (q.u[i] & 2) << 62;
  }
  EACH a->d[i] *= r[i], b->d[i] *= r[i];
}

/* Elements `from` to `to`; `from` is a multiple of DRAWN. */
static inline __attribute__((always_inline)) void fill(const filling *f, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; i += DRAWN) {
    lanes a, b;
    double x[DRAWN], scale = f->normal ? f->std : f->width;
    draw(f->seed, f->hash, (uint64_t)i / 2, &a, &b);
    if (f->normal) gauss(&a, &b);
    for (int k = 0; k < BLOCKS; k++) x[2 * k] = f->low + scale * a.d[k], x[2 * k + 1] = f->low + scale * b.d[k];
    int n = to - i < DRAWN ? (int)(to - i) : DRAWN;
    if (f->type == TT_F32 && n == DRAWN)
      for (int k = 0; k < DRAWN; k++) ((float *)f->out)[i + k] = (float)x[k];
    else
      for (int k = 0; k < n; k++) ir_store_double(f->type, f->out, i + k, x[k]);
  }
}

__attribute__((VECTORIZED noinline)) static void fill_any(const filling *f, int64_t from, int64_t to) { fill(f, from, to); }
__attribute__((VECTORIZED noinline, target("avx2"))) static void fill_avx2(const filling *f, int64_t from, int64_t to) { fill(f, from, to); }

/* Pieces in turn to each thread: an element's value is its own, so any division gives the same bits. */
static void fill_share(void *arg, int thread, int n_threads) {
  const filling *f = arg;
  bool wide = __builtin_cpu_supports("avx2");
  for (int64_t i = (int64_t)thread * PIECE; i < f->n; i += (int64_t)n_threads * PIECE) {
    int64_t end = f->n - i < PIECE ? f->n : i + PIECE;
    if (!f->drawn)
      for (int64_t k = i; k < end; k++) ir_store_double(f->type, f->out, k, f->low);
    else if (wide) fill_avx2(f, i, end);
    else fill_any(f, i, end);
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
