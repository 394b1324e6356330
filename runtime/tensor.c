/* tensor.c: typed, strided views on counted buffers.
 *
 * A view never changes once it is made, so that many owners share it: retaining counts the view, and each view counts its
 * buffer. Slices and permutations only make new strides; what needs the elements in another order or type goes through
 * tt_tensor_copy, which walks both views line by line and converts in chunks: to double, i64 or u64, then to the target, so
 * that 13 types need 26 loops and not 169. Conversions mean what the op cast means (ir/ops.def). */
#include "runtime.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct { atomic_int owners; size_t bytes; void *data; _Atomic uint64_t changes; } buffer;

struct tt_tensor {
  atomic_int owners;
  tt_dtype dtype;
  tt_shape shape;
  int64_t strides[TT_MAX_RANK];
  buffer *buffer;
  char *data;                      /* of the first element */
};

static void buffer_release(buffer *b) {
  if (atomic_fetch_sub_explicit(&b->owners, 1, memory_order_acq_rel) != 1) return;
  rt_free(b->data, b->bytes);
  free(b);
}

static tt_tensor *no_memory(tt_dtype t, const tt_shape *s, tt_error *err) {
  char type[200];
  tt_fail(err, TT_NO_MEMORY, "error: no memory for a tensor %s\n  at %zu bytes an element\n  fix: use a smaller batch or model, or a machine with more memory",
          tt_type_text(t, s, type, sizeof type), tt_dtype_size(t));
  return NULL;
}

static tt_tensor *view_of(const tt_tensor *x, tt_error *err) {
  tt_tensor *v = malloc(sizeof *v);
  if (!v) return no_memory(x->dtype, &x->shape, err);
  memcpy(v, x, sizeof *v);
  atomic_init(&v->owners, 1);
  atomic_fetch_add_explicit(&v->buffer->owners, 1, memory_order_relaxed);
  return v;
}

static void dense_strides(const tt_shape *s, int64_t *strides) {
  int64_t n = 1;
  for (int i = s->rank - 1; i >= 0; i--) {
    strides[i] = n;
    n *= s->dim[i] ? s->dim[i] : 1;
  }
}

tt_tensor *tt_tensor_new(tt_dtype t, const tt_shape *s, tt_error *err) {
  bool bad = (unsigned)t >= TT_N_DTYPES || s->rank < 0 || s->rank > TT_MAX_RANK;
  for (int i = 0; !bad && i < s->rank; i++) bad = s->dim[i] < 0;
  if (bad) {
    tt_fail(err, TT_INVALID, "error: a tensor of rank %d, element type number %d, cannot be made\n  at tt_tensor_new\n  fix: use at most %d dimensions, each >= 0, and a type of tt_dtype",
            s->rank, (int)t, TT_MAX_RANK);
    return NULL;
  }
  /* Dimensions of an empty tensor are checked too: its strides are products of the others. */
  int64_t all = 1;
  for (int i = 0; i < s->rank; i++) bad |= __builtin_mul_overflow(all, s->dim[i] ? s->dim[i] : 1, &all);
  bad |= __builtin_mul_overflow(all, (int64_t)tt_dtype_size(t), &all);
  if (bad) return no_memory(t, s, err);
  size_t bytes = (size_t)tt_shape_count(s) * tt_dtype_size(t);
  tt_tensor *x = calloc(1, sizeof *x);
  buffer *b = calloc(1, sizeof *b);
  void *data = x && b ? rt_alloc(bytes) : NULL;
  if (!data) {
    free(x);
    free(b);
    return no_memory(t, s, err);
  }
  atomic_init(&b->owners, 1);
  b->bytes = bytes;
  b->data = data;
  atomic_init(&x->owners, 1);
  x->dtype = t;
  x->shape = *s;
  x->buffer = b;
  x->data = data;
  dense_strides(s, x->strides);
  return x;
}

tt_tensor *tt_tensor_from(tt_dtype t, const tt_shape *s, const void *data, tt_error *err) {
  tt_tensor *x = tt_tensor_new(t, s, err);
  if (x && x->buffer->bytes) memcpy(x->data, data, x->buffer->bytes);
  return x;
}

tt_tensor *tt_tensor_retain(tt_tensor *x) {
  atomic_fetch_add_explicit(&x->owners, 1, memory_order_relaxed);
  return x;
}

void tt_tensor_free(tt_tensor *x) {
  if (!x || atomic_fetch_sub_explicit(&x->owners, 1, memory_order_acq_rel) != 1) return;
  buffer_release(x->buffer);
  free(x);
}

tt_tensor *tt_tensor_slice(tt_tensor *x, int axis, int64_t start, int64_t stop, int64_t step, tt_error *err) {
  char type[200];
  if (axis < 0 || axis >= x->shape.rank || start < 0 || stop < start || stop > x->shape.dim[axis] || step < 1) {
    tt_fail(err, TT_INVALID, "error: tt_tensor_slice(axis %d, start %lld, stop %lld, step %lld) leaves the tensor\n  at a tensor %s\n  fix: use an axis it has, 0 <= start <= stop <= the axis's size, and a step >= 1",
            axis, (long long)start, (long long)stop, (long long)step, tt_type_text(x->dtype, &x->shape, type, sizeof type));
    return NULL;
  }
  tt_tensor *v = view_of(x, err);
  if (!v) return NULL;
  v->shape.dim[axis] = stop == start ? 0 : (stop - start - 1) / step + 1;
  if (v->shape.dim[axis]) v->data += start * x->strides[axis] * (int64_t)tt_dtype_size(x->dtype);
  if (v->shape.dim[axis] > 1) v->strides[axis] *= step;
  return v;
}

tt_tensor *tt_tensor_permute(tt_tensor *x, const int *perm, tt_error *err) {
  unsigned seen = 0;
  for (int i = 0; i < x->shape.rank; i++)
    if (perm[i] >= 0 && perm[i] < x->shape.rank) seen |= 1u << perm[i];
  if (seen != (1u << x->shape.rank) - 1) {
    char type[200];
    tt_fail(err, TT_INVALID, "error: tt_tensor_permute wants every axis once\n  at a tensor %s\n  fix: give a permutation of 0..%d",
            tt_type_text(x->dtype, &x->shape, type, sizeof type), x->shape.rank - 1);
    return NULL;
  }
  tt_tensor *v = view_of(x, err);
  for (int i = 0; v && i < x->shape.rank; i++) {
    v->shape.dim[i] = x->shape.dim[perm[i]];
    v->strides[i] = x->strides[perm[i]];
  }
  return v;
}

bool tt_tensor_is_dense(const tt_tensor *x) {
  int64_t n = 1;
  for (int i = x->shape.rank - 1; i >= 0; i--) {
    if (x->shape.dim[i] == 0) return true;
    if (x->shape.dim[i] > 1 && x->strides[i] != n) return false;
    n *= x->shape.dim[i];
  }
  return true;
}

static tt_tensor *copy_as(tt_tensor *x, tt_dtype t, tt_error *err) {
  tt_tensor *y = tt_tensor_new(t, &x->shape, err);
  if (y && tt_tensor_copy(y, x, err) != TT_OK) {
    tt_tensor_free(y);
    return NULL;
  }
  return y;
}

tt_tensor *tt_tensor_dense(tt_tensor *x, tt_error *err) { return tt_tensor_is_dense(x) ? tt_tensor_retain(x) : copy_as(x, x->dtype, err); }
tt_tensor *tt_tensor_cast(tt_tensor *x, tt_dtype t, tt_error *err) { return t == x->dtype ? tt_tensor_retain(x) : copy_as(x, t, err); }

tt_tensor *tt_tensor_reshape(tt_tensor *x, const tt_shape *s, tt_error *err) {
  bool bad = s->rank < 0 || s->rank > TT_MAX_RANK;
  for (int i = 0; !bad && i < s->rank; i++) bad = s->dim[i] < 0;
  if (bad || tt_shape_count(s) != tt_shape_count(&x->shape)) {
    char from[200], to[200] = "a bad shape";
    tt_fail(err, TT_INVALID, "error: tt_tensor_reshape from %s to %s changes the number of elements\n  at tt_tensor_reshape\n  fix: give a shape of %lld elements",
            tt_type_text(x->dtype, &x->shape, from, sizeof from), bad ? to : tt_type_text(x->dtype, s, to, sizeof to), (long long)tt_shape_count(&x->shape));
    return NULL;
  }
  tt_tensor *dense = tt_tensor_dense(x, err), *v = dense ? view_of(dense, err) : NULL;
  if (v) {
    v->shape = *s;
    dense_strides(s, v->strides);
  }
  tt_tensor_free(dense);
  return v;
}

tt_dtype tt_tensor_dtype(const tt_tensor *x) { return x->dtype; }
tt_shape tt_tensor_shape(const tt_tensor *x) { return x->shape; }
const int64_t *tt_tensor_strides(const tt_tensor *x) { return x->strides; }
void tt_tensor_changed(tt_tensor *x) { atomic_fetch_add_explicit(&x->buffer->changes, 1, memory_order_relaxed); }
const void *rt_tensor_read(const tt_tensor *x) { return x->data; }
uint64_t rt_tensor_changes(const tt_tensor *x) { return atomic_load_explicit(&x->buffer->changes, memory_order_relaxed); }
void rt_tensor_written(tt_tensor *x) { atomic_store_explicit(&x->buffer->changes, rt_tensor_changes(x) + 1, memory_order_relaxed); }

void *tt_tensor_data(tt_tensor *x) {
  tt_tensor_changed(x);
  return x->data;
}

/* Conversion, in chunks of one kind of wide number. */
enum { CHUNK = 256 };
typedef union { double d[CHUNK]; int64_t i[CHUNK]; uint64_t u[CHUNK]; } wide;
typedef enum { REALS, SIGNED, UNSIGNED } kind;
static kind kind_of(tt_dtype t) { return tt_dtype_in(t, TT_REAL) ? REALS : tt_dtype_in(t, TT_SINT) ? SIGNED : UNSIGNED; }

#define EACH(T, left, right) { const T *x = from; for (int64_t k = 0; k < n; k++) left = right; break; }
static void widen(tt_dtype t, const void *from, int64_t stride, int64_t n, wide *w) {
  switch (t) {
  case TT_F32:  EACH(float, w->d[k], (double)x[k * stride])
  case TT_F64:  EACH(double, w->d[k], x[k * stride])
  case TT_F16:  EACH(tt_f16, w->d[k], (double)tt_f16_to_f32(x[k * stride]))
  case TT_BF16: EACH(tt_bf16, w->d[k], (double)tt_bf16_to_f32(x[k * stride]))
  case TT_I8:   EACH(int8_t, w->i[k], x[k * stride])
  case TT_I16:  EACH(int16_t, w->i[k], x[k * stride])
  case TT_I32:  EACH(int32_t, w->i[k], x[k * stride])
  case TT_I64:  EACH(int64_t, w->i[k], x[k * stride])
  case TT_U8:   EACH(uint8_t, w->u[k], x[k * stride])
  case TT_U16:  EACH(uint16_t, w->u[k], x[k * stride])
  case TT_U32:  EACH(uint32_t, w->u[k], x[k * stride])
  case TT_U64:  EACH(uint64_t, w->u[k], x[k * stride])
  case TT_BOOL: EACH(uint8_t, w->u[k], x[k * stride] != 0)
  case TT_N_DTYPES: break;
  }
}
#undef EACH
/* A real number as an integer within lo..hi: truncated, saturated, NaN gives 0. hi is exact as a double only below 2^53, so it is compared with hi+1. */
static int64_t to_signed(double d, double lo, double above) { return d != d ? 0 : d < lo ? (int64_t)lo : d >= above ? (above >= 0x1p63 ? INT64_MAX : (int64_t)above - 1) : (int64_t)d; }
static uint64_t to_unsigned(double d, double above) { return !(d > 0) ? 0 : d >= above ? (above >= 0x1p64 ? UINT64_MAX : (uint64_t)above - 1) : (uint64_t)d; }

#define EACH(T, value) { T *y = to; for (int64_t k = 0; k < n; k++) y[k * stride] = (T)(value); break; }
static void narrow_real(tt_dtype t, void *to, int64_t stride, int64_t n, const double *d) {
  switch (t) {
  case TT_F32:  EACH(float, d[k])
  case TT_F64:  EACH(double, d[k])
  case TT_F16:  { tt_f16 *y = to; for (int64_t k = 0; k < n; k++) y[k * stride] = tt_f32_to_f16((float)d[k]); break; }
  case TT_BF16: { tt_bf16 *y = to; for (int64_t k = 0; k < n; k++) y[k * stride] = tt_f32_to_bf16((float)d[k]); break; }
  case TT_I8:   EACH(int8_t, to_signed(d[k], -0x1p7, 0x1p7))
  case TT_I16:  EACH(int16_t, to_signed(d[k], -0x1p15, 0x1p15))
  case TT_I32:  EACH(int32_t, to_signed(d[k], -0x1p31, 0x1p31))
  case TT_I64:  EACH(int64_t, to_signed(d[k], -0x1p63, 0x1p63))
  case TT_U8:   EACH(uint8_t, to_unsigned(d[k], 0x1p8))
  case TT_U16:  EACH(uint16_t, to_unsigned(d[k], 0x1p16))
  case TT_U32:  EACH(uint32_t, to_unsigned(d[k], 0x1p32))
  case TT_U64:  EACH(uint64_t, to_unsigned(d[k], 0x1p64))
  case TT_BOOL: EACH(uint8_t, d[k] != 0)
  case TT_N_DTYPES: break;
  }
}
static void narrow_integer(tt_dtype t, void *to, int64_t stride, int64_t n, const uint64_t *u) {
  switch (tt_dtype_size(t)) {
  case 1: if (t == TT_BOOL) EACH(uint8_t, u[k] != 0) EACH(uint8_t, u[k])
  case 2: EACH(uint16_t, u[k])
  case 4: EACH(uint32_t, u[k])
  default: EACH(uint64_t, u[k])
  }
}
#undef EACH

static void convert_line(tt_dtype t, char *to, int64_t to_stride, tt_dtype f, const char *from, int64_t from_stride, int64_t n) {
  size_t size = tt_dtype_size(f);
  if (t == f && to_stride == 1 && from_stride == 1) {
    memcpy(to, from, (size_t)n * size);
    return;
  }
  if (t == f) {
    for (int64_t k = 0; k < n; k++) memcpy(to + k * to_stride * (int64_t)size, from + k * from_stride * (int64_t)size, size);
    return;
  }
  wide w;
  for (int64_t i = 0; i < n; i += CHUNK) {
    int64_t m = n - i < CHUNK ? n - i : CHUNK;
    widen(f, from + i * from_stride * (int64_t)size, from_stride, m, &w);
    char *at = to + i * to_stride * (int64_t)tt_dtype_size(t);
    bool single = t != TT_F64;     /* f32, f16 and bf16 are rounded to f32 at once */
    if (kind_of(f) != REALS && kind_of(t) != REALS) {
      narrow_integer(t, at, to_stride, m, w.u);
      continue;
    }
    if (kind_of(f) == SIGNED)
      for (int64_t k = 0; k < m; k++) w.d[k] = single ? (double)(float)w.i[k] : (double)w.i[k];
    if (kind_of(f) == UNSIGNED)
      for (int64_t k = 0; k < m; k++) w.d[k] = single ? (double)(float)w.u[k] : (double)w.u[k];
    narrow_real(t, at, to_stride, m, w.d);
  }
}

double tt_tensor_at(const tt_tensor *x, const int64_t *index) {
  const char *p = x->data;
  for (int i = 0; i < x->shape.rank; i++) p += index[i] * x->strides[i] * (int64_t)tt_dtype_size(x->dtype);
  double value;
  convert_line(TT_F64, (char *)&value, 1, x->dtype, p, 1, 1);
  return value;
}

tt_status tt_tensor_copy(tt_tensor *to, const tt_tensor *from, tt_error *err) {
  if (!tt_shape_equal(&to->shape, &from->shape)) {
    char a[200], b[200];
    return tt_fail(err, TT_INVALID, "error: tt_tensor_copy of %s into %s\n  at tt_tensor_copy\n  fix: make the shapes equal",
                   tt_type_text(from->dtype, &from->shape, a, sizeof a), tt_type_text(to->dtype, &to->shape, b, sizeof b));
  }
  int rank = to->shape.rank;
  int64_t n = tt_shape_count(&to->shape), index[TT_MAX_RANK] = {0};
  if (n == 0) return TT_OK;
  tt_tensor_changed(to);
  if (tt_tensor_is_dense(to) && tt_tensor_is_dense(from)) {
    convert_line(to->dtype, to->data, 1, from->dtype, from->data, 1, n);
    return TT_OK;
  }
  int last = rank - 1;             /* not dense, so rank >= 1 */
  int64_t length = to->shape.dim[last], to_size = (int64_t)tt_dtype_size(to->dtype), from_size = (int64_t)tt_dtype_size(from->dtype);
  for (int64_t line = 0; line < n / length; line++) {
    int64_t a = 0, b = 0;
    for (int i = 0; i < last; i++) {
      a += index[i] * to->strides[i];
      b += index[i] * from->strides[i];
    }
    convert_line(to->dtype, to->data + a * to_size, to->strides[last], from->dtype, from->data + b * from_size, from->strides[last], length);
    for (int i = last - 1; i >= 0 && ++index[i] == to->shape.dim[i]; i--) index[i] = 0;
  }
  return TT_OK;
}
