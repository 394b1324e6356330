/* npy.c: NumPy's array files. "\x93NUMPY", a version, the length of a header that is a Python dictionary
 * {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, then the elements. */
#include "runtime.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *text; tt_dtype dtype; } descriptions[] = {
  {"<f4", TT_F32}, {"<f8", TT_F64}, {"<f2", TT_F16}, {"|i1", TT_I8}, {"|u1", TT_U8}, {"<i2", TT_I16}, {"<u2", TT_U16}, {"<i4", TT_I32}, {"<u4", TT_U32},
  {"<i8", TT_I64}, {"<u8", TT_U64}, {"|b1", TT_BOOL},
};
enum { N_DESCRIPTIONS = sizeof descriptions / sizeof descriptions[0], PREFIX = 6 };

typedef struct { const char *path, *text; size_t at, size, offset; tt_error *err; } reader;   /* offset: of text in the file */

static bool bad(reader *r, const char *expected) {
  tt_fail(r->err, TT_FORMAT, "error: not a .npy file that can be read: expected %s\n  at %s, byte %zu\n  fix: save the array again with numpy.save", expected, r->path, r->offset + r->at);
  return false;
}

static void skip_space(reader *r) {
  while (r->at < r->size && isspace((unsigned char)r->text[r->at])) r->at++;
}
static bool accept(reader *r, const char *word) {
  skip_space(r);
  size_t n = strlen(word);
  if (r->size - r->at < n || memcmp(r->text + r->at, word, n)) return false;
  r->at += n;
  return true;
}
static bool read_string(reader *r, char *text, size_t room) {
  skip_space(r);
  if (r->at == r->size || (r->text[r->at] != '\'' && r->text[r->at] != '"')) return bad(r, "a quoted string");
  char quote = r->text[r->at++];
  size_t n = 0;
  while (r->at < r->size && r->text[r->at] != quote) {
    if (n + 1 >= room) return bad(r, "a short string");
    text[n++] = r->text[r->at++];
  }
  text[n] = 0;
  return r->at < r->size ? r->at++, true : bad(r, "the end of a string");
}
static bool read_shape(reader *r, tt_shape *s) {
  s->rank = 0;
  if (!accept(r, "(")) return bad(r, "'(' of the shape");
  while (!accept(r, ")")) {
    skip_space(r);
    int64_t n = 0;
    if (r->at == r->size || !isdigit((unsigned char)r->text[r->at])) return bad(r, "a dimension");
    while (r->at < r->size && isdigit((unsigned char)r->text[r->at]))
      if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, r->text[r->at++] - '0', &n)) return bad(r, "a dimension that fits in 64 bits");
    accept(r, "L");
    if (s->rank == TT_MAX_RANK) return bad(r, "at most 8 dimensions");
    s->dim[s->rank++] = n;
    if (!accept(r, ",")) {
      if (!accept(r, ")")) return bad(r, "',' or ')' in the shape");
      break;
    }
  }
  return true;
}

static bool read_header(reader *r, tt_dtype *t, bool *fortran, tt_shape *s) {
  int seen = 0;
  if (!accept(r, "{")) return bad(r, "'{' of the header");
  while (!accept(r, "}")) {
    char key[32], description[32];
    if (!read_string(r, key, sizeof key)) return false;
    if (!accept(r, ":")) return bad(r, "':'");
    if (!strcmp(key, "descr")) {
      if (!read_string(r, description, sizeof description)) return false;
      int i = 0;
      while (i < N_DESCRIPTIONS && strcmp(descriptions[i].text, description) && !(description[0] == '=' && !strcmp(descriptions[i].text + 1, description + 1))) i++;
      if (i == N_DESCRIPTIONS) return bad(r, "a little-endian number type (f2 f4 f8, i1 to i8, u1 to u8, b1) in 'descr'");
      *t = descriptions[i].dtype;
      seen |= 1;
    } else if (!strcmp(key, "fortran_order")) {
      *fortran = accept(r, "True");
      if (!*fortran && !accept(r, "False")) return bad(r, "True or False");
      seen |= 2;
    } else if (!strcmp(key, "shape")) {
      if (!read_shape(r, s)) return false;
      seen |= 4;
    } else return bad(r, "'descr', 'fortran_order' or 'shape'");
    if (!accept(r, ",")) {
      if (!accept(r, "}")) return bad(r, "',' or '}'");
      break;
    }
  }
  return seen == 7 || bad(r, "'descr', 'fortran_order' and 'shape'");
}

static tt_tensor *parse(const char *path, const rt_file *f, tt_error *err) {
  reader r = {path, (const char *)f->data, 0, f->bytes, 0, err};
  if (f->bytes < PREFIX + 4 || memcmp(f->data, "\x93NUMPY", PREFIX)) return bad(&r, "\"\\x93NUMPY\", a version and a header"), NULL;
  int version = f->data[PREFIX];
  if (version < 1 || version > 3) return r.at = PREFIX, bad(&r, "version 1, 2 or 3"), NULL;
  size_t start = version == 1 ? PREFIX + 4 : PREFIX + 6, length = 0;
  if (f->bytes < start) return r.at = f->bytes, bad(&r, "the header's length"), NULL;
  for (size_t i = start; i-- > PREFIX + 2;) length = length << 8 | f->data[i];
  if (length > f->bytes - start) return r.at = f->bytes, bad(&r, "the rest of the header"), NULL;
  r = (reader){path, (const char *)f->data + start, 0, length, start, err};
  tt_dtype t = TT_F32;
  tt_shape s = {0};
  bool fortran = false;
  if (!read_header(&r, &t, &fortran, &s)) return NULL;
  size_t room = f->bytes - start - length, size = tt_dtype_size(t);
  int64_t n = tt_shape_count(&s);
  r.at = r.size;
  if ((uint64_t)n != room / size || room % size) {
    char expected[200], type[150];
    snprintf(expected, sizeof expected, "%lld bytes for %s, there are %zu", n > INT64_MAX / 8 ? -1LL : (long long)n * (long long)size, tt_type_text(t, &s, type, sizeof type), room);
    return bad(&r, expected), NULL;
  }
  tt_shape stored = s;
  int perm[TT_MAX_RANK];
  for (int i = 0; fortran && i < s.rank; i++) stored.dim[i] = s.dim[s.rank - 1 - i];
  for (int i = 0; i < s.rank; i++) perm[i] = s.rank - 1 - i;
  tt_tensor *x = tt_tensor_from(t, &stored, f->data + start + length, err);
  if (x && t == TT_BOOL)
    for (int64_t i = 0; i < n; i++) ((uint8_t *)tt_tensor_data(x))[i] = ((uint8_t *)tt_tensor_data(x))[i] != 0;
  if (!x || !fortran) return x;
  tt_tensor *turned = tt_tensor_permute(x, perm, err), *dense = turned ? tt_tensor_dense(turned, err) : NULL;
  tt_tensor_free(x);
  tt_tensor_free(turned);
  return dense;
}

tt_tensor *tt_npy_load(const char *path, tt_error *err) {
  rt_file f;
  if (rt_map_file(path, &f, err) != TT_OK) return NULL;
  tt_tensor *x = parse(path, &f, err);
  rt_unmap_file(&f);
  return x;
}

tt_status tt_npy_save(const char *path, tt_tensor *x, tt_error *err) {
  char header[512], shape[300] = "";
  tt_shape s = tt_tensor_shape(x);
  int i = 0;
  while (i < N_DESCRIPTIONS && descriptions[i].dtype != tt_tensor_dtype(x)) i++;
  if (i == N_DESCRIPTIONS) return tt_fail(err, TT_UNSUPPORTED, "error: NumPy has no type for %s\n  at %s\n  fix: cast the tensor to f32 first (tt_tensor_cast)", tt_dtype_name(tt_tensor_dtype(x)), path);
  for (int k = 0; k < s.rank; k++) snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%lld,%s", (long long)s.dim[k], k + 1 < s.rank ? " " : "");
  if (s.rank > 1) shape[strlen(shape) - 1] = 0;          /* (2, 3) but (2,) */
  int n = snprintf(header + 10, sizeof header - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descriptions[i].text, shape);
  int whole = (10 + n + 1 + 63) / 64 * 64;               /* the elements begin on a multiple of 64 */
  memcpy(header, "\x93NUMPY\x01\x00", 8);
  header[8] = (char)((whole - 10) & 255);
  header[9] = (char)((whole - 10) >> 8);
  memset(header + 10 + n, ' ', (size_t)(whole - 10 - n));
  header[whole - 1] = '\n';
  tt_tensor *dense = tt_tensor_dense(x, err);
  if (!dense) return TT_NO_MEMORY;
  size_t bytes = (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(x));
  tt_status status = rt_write_parts(path, (rt_part[]){{header, (size_t)whole}, {tt_tensor_data(dense), bytes}}, 2, err);
  tt_tensor_free(dense);
  return status;
}
