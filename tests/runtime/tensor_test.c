/* Views, conversions and copies of tensors, against index arithmetic written out. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "runtime/runtime.h"

static tt_tensor *counting(tt_dtype t, tt_shape s) {
  tt_shape flat = {1, {tt_shape_count(&s)}};
  tt_tensor *x = tt_tensor_new(TT_F64, &flat, NULL);
  for (int64_t i = 0; i < flat.dim[0]; i++) ((double *)tt_tensor_data(x))[i] = (double)i;
  tt_tensor *y = tt_tensor_reshape(x, &s, NULL), *z = tt_tensor_cast(y, t, NULL);
  tt_tensor_free(x);
  tt_tensor_free(y);
  return z;
}

Test(tensor, new_is_zero_aligned_and_dense) {
  for (int t = 0; t < TT_N_DTYPES; t++) {
    tt_tensor *x = tt_tensor_new((tt_dtype)t, &(tt_shape){2, {3, 700000}}, NULL);
    cr_assert_not_null(x);
    cr_assert_eq((uintptr_t)tt_tensor_data(x) % 64, 0);
    cr_assert(tt_tensor_is_dense(x));
    cr_assert_eq(tt_tensor_at(x, (int64_t[]){2, 699999}), 0);
    tt_tensor_free(x);
  }
  tt_tensor_free(NULL);
}

Test(tensor, sizes_that_overflow_are_errors) {
  tt_error err = {0};
  cr_assert_null(tt_tensor_new(TT_F64, &(tt_shape){2, {INT64_MAX, 2}}, &err));
  cr_assert_eq(err.status, TT_NO_MEMORY);
  err = (tt_error){0};
  cr_assert_null(tt_tensor_new(TT_F64, &(tt_shape){3, {INT64_MAX, 0, INT64_MAX}}, &err));
  err = (tt_error){0};
  cr_assert_null(tt_tensor_new(TT_F32, &(tt_shape){1, {-1}}, &err));
  cr_assert_eq(err.status, TT_INVALID);
  err = (tt_error){0};
  cr_assert_null(tt_tensor_new(TT_U8, &(tt_shape){1, {INT64_MAX / 2}}, &err));
  cr_assert_eq(err.status, TT_NO_MEMORY);
}

Test(tensor, slice_permute_reshape) {
  tt_tensor *x = counting(TT_I32, (tt_shape){3, {4, 5, 6}});
  tt_tensor *s = tt_tensor_slice(x, 1, 1, 5, 2, NULL);                       /* [4,2,6] */
  tt_tensor *p = tt_tensor_permute(s, (int[]){2, 0, 1}, NULL);               /* [6,4,2] */
  cr_assert_not(tt_tensor_is_dense(p));
  tt_tensor *r = tt_tensor_reshape(p, &(tt_shape){2, {8, 6}}, NULL);
  cr_assert(tt_tensor_is_dense(r));
  for (int64_t a = 0; a < 6; a++)
    for (int64_t b = 0; b < 4; b++)
      for (int64_t c = 0; c < 2; c++) {
        double want = (double)(b * 30 + (1 + 2 * c) * 6 + a);
        int64_t flat = (a * 4 + b) * 2 + c;
        cr_assert_eq(tt_tensor_at(p, (int64_t[]){a, b, c}), want);
        cr_assert_eq(tt_tensor_at(r, (int64_t[]){flat / 6, flat % 6}), want);
      }
  tt_tensor_free(x);                                                         /* views keep the buffer */
  cr_assert_eq(tt_tensor_at(s, (int64_t[]){3, 1, 5}), 113);
  tt_tensor_free(s);
  tt_tensor_free(p);
  tt_tensor_free(r);
}

Test(tensor, empty_and_scalar) {
  tt_tensor *x = counting(TT_F32, (tt_shape){2, {3, 4}});
  tt_tensor *empty = tt_tensor_slice(x, 0, 3, 3, 1, NULL);
  cr_assert_eq(tt_tensor_shape(empty).dim[0], 0);
  tt_tensor *cast = tt_tensor_cast(empty, TT_I64, NULL);
  cr_assert_eq(tt_tensor_shape(cast).dim[1], 4);
  tt_tensor *one = tt_tensor_new(TT_F16, &(tt_shape){0}, NULL), *two = tt_tensor_cast(one, TT_F32, NULL);
  cr_assert_eq(tt_tensor_at(two, NULL), 0);
  tt_tensor_free(x);
  tt_tensor_free(empty);
  tt_tensor_free(cast);
  tt_tensor_free(one);
  tt_tensor_free(two);
}

Test(tensor, wrong_views_are_errors) {
  tt_tensor *x = counting(TT_F32, (tt_shape){2, {3, 4}});
  tt_error err = {0};
  cr_assert_null(tt_tensor_slice(x, 2, 0, 1, 1, &err));
  cr_assert_null(tt_tensor_slice(x, 0, 1, 4, 1, &err));
  cr_assert_null(tt_tensor_slice(x, 0, 0, 2, 0, &err));
  cr_assert_null(tt_tensor_permute(x, (int[]){0, 0}, &err));
  cr_assert_null(tt_tensor_permute(x, (int[]){-1, 1}, &err));
  cr_assert_null(tt_tensor_reshape(x, &(tt_shape){1, {13}}, &err));
  cr_assert_eq(err.status, TT_INVALID);
  cr_assert_not_null(strstr(err.message, "fix:"));
  tt_tensor_free(x);
}

/* What the op cast means: truncation, saturation, NaN gives 0, bool is != 0, integers wrap. */
Test(tensor, conversions) {
  double in[] = {1.9, -1.9, 300, -300, 1e30, -1e30, NAN, INFINITY, 0.25};
  tt_shape s = {1, {9}};
  tt_tensor *x = tt_tensor_from(TT_F64, &s, in, NULL);
  struct { tt_dtype t; double want[9]; } rows[] = {
    {TT_I8, {1, -1, 127, -128, 127, -128, 0, 127, 0}}, {TT_U8, {1, 0, 255, 0, 255, 0, 0, 255, 0}},
    {TT_I32, {1, -1, 300, -300, 2147483647, -2147483648.0, 0, 2147483647, 0}}, {TT_U64, {1, 0, 300, 0, 0x1p64, 0, 0, 0x1p64, 0}},
    {TT_I64, {1, -1, 300, -300, 0x1p63, -0x1p63, 0, 0x1p63, 0}}, {TT_BOOL, {1, 1, 1, 1, 1, 1, 1, 1, 1}},
  };
  for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
    tt_tensor *y = tt_tensor_cast(x, rows[r].t, NULL);
    for (int64_t i = 0; i < 9; i++) cr_assert_eq(tt_tensor_at(y, &i), rows[r].want[i], "%s of %g", tt_dtype_name(rows[r].t), in[i]);
    tt_tensor_free(y);
  }
  tt_tensor_free(x);
  int64_t wide[] = {(1LL << 53) + 1, -1, 256, 0x1ffffff01};
  s.dim[0] = 4;
  x = tt_tensor_from(TT_I64, &s, wide, NULL);
  tt_tensor *u = tt_tensor_cast(x, TT_U64, NULL), *b = tt_tensor_cast(x, TT_U8, NULL), *f = tt_tensor_cast(x, TT_F32, NULL);
  cr_assert_eq(((uint64_t *)tt_tensor_data(u))[0], (1ULL << 53) + 1);        /* exact beyond doubles */
  cr_assert_eq(((uint64_t *)tt_tensor_data(u))[1], UINT64_MAX);
  cr_assert_eq(((uint8_t *)tt_tensor_data(b))[2], 0);
  cr_assert_eq(((uint8_t *)tt_tensor_data(b))[3], 1);
  cr_assert_eq(((float *)tt_tensor_data(f))[0], (float)wide[0]);
  tt_tensor_free(x);
  tt_tensor_free(u);
  tt_tensor_free(b);
  tt_tensor_free(f);
}

Test(tensor, every_type_to_every_type) {
  for (int from = 0; from < TT_N_DTYPES; from++)
    for (int to = 0; to < TT_N_DTYPES; to++) {
      tt_tensor *x = counting((tt_dtype)from, (tt_shape){2, {10, 12}}), *turned = tt_tensor_permute(x, (int[]){1, 0}, NULL), *y = tt_tensor_cast(turned, (tt_dtype)to, NULL);
      for (int64_t i = 0; i < 12; i++)
        for (int64_t k = 0; k < 10; k++) {
          double n = (double)(k * 12 + i), want = from == TT_BOOL || to == TT_BOOL ? n != 0 : n;
          if (from == to) want = from == TT_BOOL ? n != 0 : n;
          cr_assert_eq(tt_tensor_at(y, (int64_t[]){i, k}), want, "%s to %s", tt_dtype_name((tt_dtype)from), tt_dtype_name((tt_dtype)to));
        }
      tt_tensor_free(x);
      tt_tensor_free(turned);
      tt_tensor_free(y);
    }
}

Test(tensor, copy_into_a_strided_view) {
  tt_tensor *x = counting(TT_F32, (tt_shape){2, {4, 6}}), *zero = tt_tensor_new(TT_F64, &(tt_shape){2, {4, 3}}, NULL);
  tt_tensor *odd = tt_tensor_slice(x, 1, 1, 6, 2, NULL);
  cr_assert_eq(tt_tensor_copy(odd, zero, NULL), TT_OK);
  for (int64_t i = 0; i < 4; i++)
    for (int64_t k = 0; k < 6; k++) cr_assert_eq(tt_tensor_at(x, (int64_t[]){i, k}), k % 2 ? 0 : (double)(i * 6 + k));
  cr_assert_eq(tt_tensor_copy(x, zero, NULL), TT_INVALID);
  tt_tensor_free(x);
  tt_tensor_free(zero);
  tt_tensor_free(odd);
}
