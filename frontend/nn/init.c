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

/* Two numbers in (0, 1). */
static void draw(uint64_t seed, uint64_t name, uint64_t block, double *u, double *v) {
  uint32_t words[4], counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)name, (uint32_t)(name >> 32)},
      key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  tt_philox(10, counter, key, words);
  *u = unit(words[0], words[1]);
  *v = unit(words[2], words[3]);
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
  for (int64_t i = 0; i < n; i += 2) {
    double x[2] = {low, low}, u, v;
    if (!constant) draw(seed, hash, (uint64_t)i / 2, &u, &v);
    if (normal) {          /* Box & Muller 1958 */
      double r = std * sqrt(-2 * log(u));
      x[0] += r * cos(2 * pi * v);
      x[1] += r * sin(2 * pi * v);
    } else if (!constant) {
      x[0] += width * u;
      x[1] += width * v;
    }
    for (int k = 0; k < 2 && i + k < n; k++) ir_store_double(t, out, i + k, x[k]);
  }
  return TT_OK;
}
