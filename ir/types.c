/* types.c: element types, shapes, errors, half floats and counter-based random numbers: what ir/ and runtime/ share.
 * It belongs to libtinytorch_rt and needs nothing else. */
#include "types.h"

#include <stdio.h>
#include <string.h>

static const struct { const char *name; size_t size; } types[TT_N_DTYPES] = {
#define DTYPE(NAME, text, ctype, bytes, cls) [TT_##NAME] = {#text, sizeof(ctype)},
#include "types.def"
#undef DTYPE
};
#define DTYPE(NAME, text, ctype, bytes, cls) \
  _Static_assert(sizeof(ctype) == bytes, "size of " #text); _Static_assert(TT_##cls >> TT_##NAME & 1, "class of " #text);
#include "types.def"
#undef DTYPE

size_t tt_dtype_size(tt_dtype t) { return types[t].size; }
const char *tt_dtype_name(tt_dtype t) { return types[t].name; }

bool tt_dtype_parse(const char *text, size_t length, tt_dtype *t) {
  for (int i = 0; i < TT_N_DTYPES; i++)
    if (strlen(types[i].name) == length && !memcmp(types[i].name, text, length)) return *t = (tt_dtype)i, true;
  return false;
}

/* Shapes whose count does not fit give INT64_MAX; no graph or tensor has one. */
int64_t tt_shape_count(const tt_shape *s) {
  int64_t n = 1;
  bool over = false;
  for (int i = 0; i < s->rank; i++) {
    if (s->dim[i] == 0) return 0;
    over |= __builtin_mul_overflow(n, s->dim[i], &n);
  }
  return over ? INT64_MAX : n;
}

bool tt_shape_equal(const tt_shape *a, const tt_shape *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

char *tt_type_text(tt_dtype t, const tt_shape *s, char *text, size_t size) {
  size_t n = (size_t)snprintf(text, size, "%s[", types[t].name);
  for (int i = 0; i < s->rank && n < size; i++) n += (size_t)snprintf(text + n, size - n, i ? ",%lld" : "%lld", (long long)s->dim[i]);
  if (n < size) snprintf(text + n, size - n, "]");
  return text;
}

tt_status tt_fail(tt_error *err, tt_status status, const char *format, ...) {
  if (!err || err->status != TT_OK) return status;
  err->status = status;
  va_list list;
  va_start(list, format);
  vsnprintf(err->message, sizeof err->message, format, list);
  va_end(list);
  return status;
}

static uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

float tt_f16_to_f32(tt_f16 h) {
  uint32_t sign = (uint32_t)(h.bits & 0x8000) << 16, e = h.bits >> 10 & 31, m = h.bits & 0x3ff;
  if (e == 31) return float_of(sign | 0x7f800000 | m << 13);
  if (e) return float_of(sign | (e + 112) << 23 | m << 13);
  float x = (float)m * 0x1p-24f;                        /* exact: a subnormal half is a normal float */
  return float_of(sign | bits_of(x));
}

tt_f16 tt_f32_to_f16(float x) {
  uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return (tt_f16){(uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff))};
  if (a >= 0x47800000) return (tt_f16){(uint16_t)(sign | 0x7c00)};
  if (a < 0x38800000)                                   /* below 2^-14: adding 0.5 leaves the half's bits, rounded, at the bottom */
    return (tt_f16){(uint16_t)(sign | (bits_of(float_of(a) + 0.5f) - 0x3f000000))};
  a += 0xc8000fff + (a >> 13 & 1);                      /* exponent - 112, and half a unit for rounding to even */
  return (tt_f16){(uint16_t)(sign | a >> 13)};
}

float tt_bf16_to_f32(tt_bf16 x) { return float_of((uint32_t)x.bits << 16); }

tt_bf16 tt_f32_to_bf16(float x) {
  uint32_t u = bits_of(x);
  if ((u & 0x7fffffff) > 0x7f800000) return (tt_bf16){(uint16_t)(u >> 16 | 0x40)};
  return (tt_bf16){(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

void tt_philox(int rounds, const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < rounds; round++) {
    uint64_t p0 = (uint64_t)c0 * 0xD2511F53, p1 = (uint64_t)c2 * 0xCD9E8D57;
    uint32_t a = (uint32_t)(p1 >> 32) ^ c1 ^ k0, b = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c0 = a, c1 = (uint32_t)p1, c2 = b, c3 = (uint32_t)p0;
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint32_t tt_random_word(uint64_t seed, uint64_t step, uint32_t stream, uint64_t i) {
  uint64_t n = i / 64 * 16 + i % 16;
  uint32_t out[4];
  tt_philox(10, (uint32_t[4]){(uint32_t)n, (uint32_t)(n >> 32), (uint32_t)step, stream}, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)}, out);
  return out[i / 16 % 4];
}

uint16_t tt_random_half(uint64_t seed, uint64_t step, uint32_t stream, uint64_t i) {
  uint64_t n = i / 32 * 4 + i % 16 / 4;
  uint32_t out[4];
  tt_philox(TT_RANDOM_ROUNDS, (uint32_t[4]){(uint32_t)n, (uint32_t)(n >> 32), (uint32_t)step, stream}, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)}, out);
  uint32_t word = out[i / 16 % 2 * 2 + (i / 2 % 2 ? 0 : 1)];
  return (uint16_t)(i % 2 ? word >> 16 : word);
}
