/* sort.c: argsort, the kernel that is C and not generated.
 *
 * Elements become unsigned keys whose order is theirs: an integer's sign bit is turned, a float's bits too (all of them when it
 * is negative), NaN is the largest, -0 equals 0, and descending turns all bits. Indices are sorted in the place of the result by
 * (key, index), which no two share, so that the result is the stable one whatever the algorithm; heap sort needs no memory. */
#include "program.h"

#include <string.h>

typedef uint64_t key_of(const char *p);
#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t key_double(double d) {
  if (d != d) return UINT64_MAX;
  d += 0.0;                                              /* -0 becomes 0 */
  uint64_t u;
  memcpy(&u, &d, 8);
  return u >> 63 ? ~u : u | (uint64_t)1 << 63;
}
#define KEY(NAME, T, value) INLINE uint64_t key_##NAME(const char *p) { T v; memcpy(&v, p, sizeof v); return value; }
KEY(F32, float, key_double((double)v))
KEY(F64, double, key_double(v))
KEY(F16, tt_f16, key_double((double)tt_f16_to_f32(v)))
KEY(BF16, tt_bf16, key_double((double)tt_bf16_to_f32(v)))
KEY(I8, int8_t, (uint64_t)v ^ (uint64_t)1 << 63)
KEY(I16, int16_t, (uint64_t)v ^ (uint64_t)1 << 63)
KEY(I32, int32_t, (uint64_t)v ^ (uint64_t)1 << 63)
KEY(I64, int64_t, (uint64_t)v ^ (uint64_t)1 << 63)
KEY(U8, uint8_t, v)
KEY(U16, uint16_t, v)
KEY(U32, uint32_t, v)
KEY(U64, uint64_t, v)
KEY(BOOL, uint8_t, v != 0)

/* x and y: the line's first element; stride in elements, the same for both. */
INLINE void sort_line(const char *x, int64_t *y, int64_t n, int64_t stride, size_t size, uint64_t flip, key_of *key) {
#define AT(i) y[(i) * stride]
#define KEY_AT(index) (key(x + (index) * stride * (int64_t)size) ^ flip)
  for (int64_t i = 0; i < n; i++) AT(i) = i;
  if (n <= 24) {
    for (int64_t i = 1; i < n; i++) {
      uint64_t k = KEY_AT(i);
      int64_t j = i;
      for (; j > 0 && KEY_AT(AT(j - 1)) > k; j--) AT(j) = AT(j - 1);
      AT(j) = i;
    }
    return;
  }
  /* [0, end) is a heap with its largest first; `start` goes down to build it, then `end` to empty it. */
  for (int64_t start = n / 2, end = n; end > 1;) {
    int64_t moving;
    if (start > 0) moving = AT(--start);
    else {
      moving = AT(--end);
      AT(end) = AT(0);
    }
    uint64_t k = KEY_AT(moving);
    int64_t hole = start;
    for (int64_t child; (child = 2 * hole + 1) < end; hole = child) {
      uint64_t c = KEY_AT(AT(child));
      if (child + 1 < end) {
        uint64_t d = KEY_AT(AT(child + 1));
        if (d > c || (d == c && AT(child + 1) > AT(child))) child++, c = d;
      }
      if (c < k || (c == k && AT(child) < moving)) break;
      AT(hole) = AT(child);
    }
    AT(hole) = moving;
  }
#undef AT
#undef KEY_AT
}

void rt_argsort(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) {
  const rt_sort *s = context;
  (void)scratch;
  for (int64_t t = begin; t < end; t++) {
    int64_t first = t / s->inner * s->inner * s->length + t % s->inner;
    size_t size = tt_dtype_size(s->dtype);
    const char *x = args[0] + first * (int64_t)size;
    int64_t *y = (int64_t *)args[1] + first;
    uint64_t flip = s->descending ? UINT64_MAX : 0;
    switch (s->dtype) {
#define DTYPE(NAME, text, ctype, bytes, cls) case TT_##NAME: sort_line(x, y, s->length, s->inner, bytes, flip, key_##NAME); break;
#include "../ir/types.def"
#undef DTYPE
    case TT_N_DTYPES: break;
    }
  }
}
