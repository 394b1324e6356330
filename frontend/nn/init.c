/* init.c: how parameters start. Element i of the parameter NAME under a seed is a function of these three alone: two elements come from
 * the Philox block of counter (i/2, hash of NAME), so that adding a layer, or declaring layers in another order, changes no other value. */
#include "../frontend.h"

/* FNV-1a, 64 bits. */
static uint64_t hash_name(const char *name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
  return h;
}

/* 53 random bits in (0, 1). */
static double unit(uint32_t a, uint32_t b) { return ((double)((uint64_t)a << 21 | b >> 11) + 0.5) * 0x1p-53; }

/* tt_philox of BLOCKS counters from `first` on, side by side, so that they fill vectors: two numbers in (0, 1) of each. */
#ifdef __clang__                  /* it does so anyway, and knows no such word */
#define VECTORIZED
#else
#define VECTORIZED __attribute__((optimize("O3")))
#endif
enum { BLOCKS = 16 };
VECTORIZED static void draw(uint64_t seed, uint64_t name, uint64_t first, double numbers[2 * BLOCKS]) {
  uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS], k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int i = 0; i < BLOCKS; i++) c0[i] = (uint32_t)(first + i), c1[i] = (uint32_t)((first + i) >> 32), c2[i] = (uint32_t)name, c3[i] = (uint32_t)(name >> 32);
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < BLOCKS; i++) {
      uint64_t p0 = (uint64_t)c0[i] * 0xD2511F53, p1 = (uint64_t)c2[i] * 0xCD9E8D57;
      uint32_t a = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0, b = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
      c0[i] = a, c1[i] = (uint32_t)p1, c2[i] = b, c3[i] = (uint32_t)p0;
    }
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  for (int i = 0; i < BLOCKS; i++) numbers[2 * i] = unit(c0[i], c1[i]), numbers[2 * i + 1] = unit(c2[i], c3[i]);
}

tt_status tt_init_fill(tt_init init, const char *name, uint64_t seed, tt_dtype t, const tt_shape *s, void *out, tt_error *err) {
  int64_t n = tt_shape_count(s);
  double fan_in = 1, fan_out = 1, pi = 3.14159265358979323846;
  for (int i = 0; i < s->rank; i++) {
    if (i != 0) fan_in *= (double)s->dim[i];
    if (i != 1) fan_out *= (double)s->dim[i];
  }
  bool normal = false;
  double low = 0, width = 0, std = 0;             /* uniform in low .. low + width, or low + std * gauss */
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
  uint64_t hash = hash_name(name);
  bool constant = !normal && width == 0;
  double x[2 * BLOCKS];
  for (int64_t i = 0; i < n; i += 2 * BLOCKS) {
    if (!constant) draw(seed, hash, (uint64_t)i / 2, x);
    for (int k = 0; k < 2 * BLOCKS && i + k < n; k += 2) {
      double r = normal ? std * sqrt(-2 * log(x[k])) : 0, v = x[k + 1];      /* Box & Muller 1958 */
      x[k] = constant ? low : low + (normal ? r * cos(2 * pi * v) : width * x[k]);
      x[k + 1] = constant ? low : low + (normal ? r * sin(2 * pi * v) : width * v);
    }
    for (int k = 0; k < 2 * BLOCKS && i + k < n; k++) {
      if (t == TT_F32) ((float *)out)[i + k] = (float)x[k];
      else ir_store_double(t, out, i + k, x[k]);
    }
  }
  return TT_OK;
}
