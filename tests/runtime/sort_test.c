/* rt_argsort against a stable insertion sort by plain comparison, on every element type, strides and lengths. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "runtime/runtime.h"

static bool before(double a, double b, bool descending) {                    /* NaN is the largest */
  if (descending) { double t = a; a = b; b = t; }
  return isnan(b) ? !isnan(a) : a < b;
}

static void check(tt_dtype t, int64_t outer, int64_t length, int64_t inner, bool descending, uint32_t stream) {
  int64_t n = outer * length * inner;
  tt_shape s = {1, {n}};
  tt_tensor *wide = tt_tensor_new(TT_F64, &s, NULL);
  double *d = tt_tensor_data(wide);
  for (int64_t i = 0; i < n; i++) {
    uint32_t word = tt_random_word(1, 0, stream, (uint64_t)i);
    d[i] = (double)(word % 41) - (tt_dtype_in(t, TT_UINT) ? 0 : 20);
    if (tt_dtype_in(t, TT_REAL) && word % 7 == 0) d[i] = (double[]){NAN, -NAN, INFINITY, -INFINITY, -0.0, 0.0}[word / 7 % 6];
  }
  tt_tensor *x = tt_tensor_cast(wide, t, NULL);
  int64_t *y = malloc((size_t)n * sizeof *y), *want = malloc((size_t)length * sizeof *want);
  rt_argsort((char *const[]){tt_tensor_data(x), (char *)y}, 0, outer * inner, NULL, &(rt_sort){t, length, inner, inner, descending});
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++) {
      for (int64_t k = 0; k < length; k++) {
        int64_t j = k, here = (o * length + k) * inner + i;
        double v = tt_tensor_at(x, &here);
        for (; j > 0; j--) {
          int64_t there = (o * length + want[j - 1]) * inner + i;
          if (!before(v, tt_tensor_at(x, &there), descending)) break;
          want[j] = want[j - 1];
        }
        want[j] = k;
      }
      for (int64_t k = 0; k < length; k++)
        cr_assert_eq(y[(o * length + k) * inner + i], want[k], "%s length %lld inner %lld descending %d: place %lld", tt_dtype_name(t), (long long)length, (long long)inner, descending, (long long)k);
    }
  free(y);
  free(want);
  tt_tensor_free(wide);
  tt_tensor_free(x);
}

Test(sort, all_types) {
  const int64_t lengths[] = {1, 2, 3, 24, 25, 26, 64, 301};
  for (int t = 0; t < TT_N_DTYPES; t++)
    for (int i = 0; i < 8; i++)
      for (int descending = 0; descending < 2; descending++) check((tt_dtype)t, 3, lengths[i], 1 + i % 3 * 2, descending, (uint32_t)(t * 16 + i));
}
