/* safetensors.c: named tensors in one file: eight bytes of length, a JSON header, the elements.
 *
 *   {"__metadata__": {"format": "pt"}, "fc1.weight": {"dtype": "F32", "shape": [128,784], "data_offsets": [0, 401408]}, ...}
 *
 * Nothing of the header is believed before it is checked: every tensor's bytes are its shape's times its type's, and together
 * they cover the rest of the file exactly once, as the format demands. Reading a tensor copies it, so its place need not be
 * aligned. Writing keeps the caller's order and pads the header with spaces so that the elements begin on a multiple of 8. */
#include "runtime.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER 100000000u      /* the format's limit */

typedef struct { const char *name; tt_dtype dtype; tt_shape shape; uint64_t begin, end; } entry;

struct tt_safetensors {
  char *path;
  rt_file file;                    /* mapped; empty when the bytes are the caller's */
  const uint8_t *data;             /* of the elements */
  json_t *header;                  /* owns names and metadata */
  entry *entries;
  int n;
  uint64_t bytes;                  /* of all elements */
};

static const char *const format_names[TT_N_DTYPES] = {
  [TT_F32] = "F32", [TT_F64] = "F64", [TT_F16] = "F16", [TT_BF16] = "BF16", [TT_I8] = "I8", [TT_U8] = "U8", [TT_I16] = "I16", [TT_U16] = "U16",
  [TT_I32] = "I32", [TT_U32] = "U32", [TT_I64] = "I64", [TT_U64] = "U64", [TT_BOOL] = "BOOL",
};

#define FIX "fix: the file is damaged or is no .safetensors file; get it again"

static bool bad_entry(const char *path, const char *name, const char *expected, tt_error *err) {
  tt_fail(err, TT_FORMAT, "error: expected %s\n  at %s, byte 8, the header's tensor %.200s\n  " FIX, expected, path, name);
  return false;
}

static bool read_entry(const char *path, const char *name, json_t *j, uint64_t room, entry *e, tt_error *err) {
  json_t *dtype = json_object_get(j, "dtype"), *shape = json_object_get(j, "shape"), *offsets = json_object_get(j, "data_offsets");
  char text[300];
  if (!json_is_object(j) || json_object_size(j) != 3 || !json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
    return bad_entry(path, name, "an object of \"dtype\", \"shape\" and two \"data_offsets\"", err);
  int t = 0;
  while (t < TT_N_DTYPES && strcmp(format_names[t], json_string_value(dtype))) t++;
  if (t == TT_N_DTYPES) {
    tt_fail(err, TT_UNSUPPORTED, "error: element type %.50s is not known here\n  at %s, byte 8, the header's tensor %.200s\n  fix: store the tensor as F32, F64, F16, BF16, I8 to I64, U8 to U64 or BOOL",
            json_string_value(dtype), path, name);
    return false;
  }
  if (json_array_size(shape) > TT_MAX_RANK) return bad_entry(path, name, "at most 8 dimensions", err);
  *e = (entry){.name = name, .dtype = (tt_dtype)t, .shape.rank = (int)json_array_size(shape)};
  uint64_t bytes = tt_dtype_size(e->dtype);
  bool over = false, empty = false;
  for (int i = 0; i < e->shape.rank; i++) {
    json_t *d = json_array_get(shape, (size_t)i);
    if (!json_is_integer(d) || json_integer_value(d) < 0) return bad_entry(path, name, "dimensions that are integers >= 0", err);
    e->shape.dim[i] = json_integer_value(d);
    empty |= e->shape.dim[i] == 0;
    over |= __builtin_mul_overflow(bytes, (uint64_t)e->shape.dim[i] + (e->shape.dim[i] == 0), &bytes);
  }
  if (over) return bad_entry(path, name, "a shape whose bytes fit in 64 bits", err);
  if (empty) bytes = 0;
  json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  if (!json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
    return bad_entry(path, name, "data_offsets that are integers, 0 <= begin <= end", err);
  e->begin = (uint64_t)json_integer_value(begin);
  e->end = (uint64_t)json_integer_value(end);
  snprintf(text, sizeof text, "data_offsets within the %" PRIu64 " bytes after the header, not [%" PRIu64 ", %" PRIu64 "]", room, e->begin, e->end);
  if (e->end > room) return bad_entry(path, name, text, err);
  char type[200];
  snprintf(text, sizeof text, "%" PRIu64 " bytes of data for %s, not %" PRIu64, bytes, tt_type_text(e->dtype, &e->shape, type, sizeof type), e->end - e->begin);
  return e->end - e->begin == bytes || bad_entry(path, name, text, err);
}

static int by_place(const void *a, const void *b) {
  const entry *x = a, *y = b;
  return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1) : x->end != y->end ? (x->end < y->end ? -1 : 1) : strcmp(x->name, y->name);
}

static bool tiles(const char *path, const entry *entries, int n, uint64_t room, uint64_t start, tt_error *err) {
  uint64_t at = 0;
  for (int i = 0; i <= n; i++) {
    uint64_t begin = i < n ? entries[i].begin : room;
    if (begin == at) {
      at = i < n ? entries[i].end : at;
      continue;
    }
    tt_fail(err, TT_FORMAT, "error: expected %s to begin at offset %" PRIu64 " of the data, where the tensor before it ends, not at %" PRIu64 "\n  at %s, byte %" PRIu64 "\n  " FIX,
            i < n ? entries[i].name : "the end of the file", at, begin, path, start + at);
    return false;
  }
  return true;
}

static bool read_all(tt_safetensors *f, const uint8_t *data, size_t bytes, tt_error *err) {
  const char *path = f->path;
  uint64_t length = 0;
  if (bytes >= 8)
    for (int i = 8; i-- > 0;) length = length << 8 | data[i];
  if (bytes < 8 || length > MAX_HEADER || length > bytes - 8) {
    tt_fail(err, TT_FORMAT, "error: expected 8 bytes with the header's length, at most %u and within the file; the file has %zu bytes and says %" PRIu64 "\n  at %s, byte 0\n  " FIX, MAX_HEADER, bytes, length, path);
    return false;
  }
  json_error_t where;
  f->header = json_loadb((const char *)data + 8, (size_t)length, JSON_REJECT_DUPLICATES, &where);
  if (!json_is_object(f->header) || data[8] != '{') {
    tt_fail(err, TT_FORMAT, "error: expected a JSON object as the header: %s\n  at %s, byte %lld\n  " FIX, f->header ? "it is something else" : where.text, path, 8LL + (f->header ? 0 : where.position));
    return false;
  }
  uint64_t start = 8 + length, room = bytes - start;
  f->data = data + start;
  f->entries = calloc(json_object_size(f->header) + 1, sizeof *f->entries);
  f->bytes = room;
  if (!f->entries) {
    tt_fail(err, TT_NO_MEMORY, "error: no memory for the list of tensors\n  at %s\n  fix: use a machine with more memory", path);
    return false;
  }
  const char *name;
  json_t *j;
  json_object_foreach(f->header, name, j) {
    if (strcmp(name, "__metadata__")) {
      if (!read_entry(path, name, j, room, &f->entries[f->n], err)) return false;
      f->n++;
      continue;
    }
    const char *key;
    json_t *value;
    if (!json_is_object(j)) return bad_entry(path, name, "an object of strings", err);
    json_object_foreach(j, key, value)
      if (!json_is_string(value)) return bad_entry(path, name, "an object of strings", err);
  }
  if (f->n) qsort(f->entries, (size_t)f->n, sizeof *f->entries, by_place);
  return tiles(path, f->entries, f->n, room, start, err);
}

static tt_safetensors *open_bytes(const char *path, const void *data, size_t bytes, rt_file file, tt_error *err) {
  tt_safetensors *f = calloc(1, sizeof *f);
  char *own = f ? strdup(path) : NULL;
  if (!own) {
    free(f);
    rt_unmap_file(&file);
    tt_fail(err, TT_NO_MEMORY, "error: no memory to open a file\n  at %s\n  fix: use a machine with more memory", path);
    return NULL;
  }
  f->path = own;
  f->file = file;
  if (read_all(f, data, bytes, err)) return f;
  tt_safetensors_close(f);
  return NULL;
}

tt_safetensors *tt_safetensors_open(const char *path, tt_error *err) {
  rt_file file;
  if (rt_map_file(path, &file, err) != TT_OK) return NULL;
  return open_bytes(path, file.data, file.bytes, file, err);
}

tt_safetensors *tt_safetensors_open_memory(const void *data, size_t bytes, const char *name, tt_error *err) { return open_bytes(name, data, bytes, (rt_file){0}, err); }

void tt_safetensors_close(tt_safetensors *f) {
  if (!f) return;
  json_decref(f->header);
  rt_unmap_file(&f->file);
  free(f->entries);
  free(f->path);
  free(f);
}

int tt_safetensors_count(const tt_safetensors *f) { return f->n; }
const char *tt_safetensors_name(const tt_safetensors *f, int i) { return i >= 0 && i < f->n ? f->entries[i].name : NULL; }
tt_shape tt_safetensors_shape(const tt_safetensors *f, int i) { return i >= 0 && i < f->n ? f->entries[i].shape : (tt_shape){0}; }
const char *tt_safetensors_metadata(const tt_safetensors *f, const char *key) { return json_string_value(json_object_get(json_object_get(f->header, "__metadata__"), key)); }

tt_tensor *tt_safetensors_get(tt_safetensors *f, const char *name, tt_error *err) {
  json_t *j = strcmp(name, "__metadata__") ? json_object_get(f->header, name) : NULL;
  entry e;
  if (!j) {
    tt_fail(err, TT_INVALID, "error: no tensor is called %s\n  at %s, which has %d tensors%s%s\n  fix: check the name against those of the file", name, f->path, f->n, f->n ? ", the first is " : "", f->n ? f->entries[0].name : "");
    return NULL;
  }
  if (!read_entry(f->path, name, j, f->bytes, &e, err)) return NULL;   /* was read when the file was opened: passes again */
  tt_tensor *x = tt_tensor_from(e.dtype, &e.shape, f->data + e.begin, err);
  if (x && e.dtype == TT_BOOL)
    for (uint64_t i = 0; i < e.end - e.begin; i++) ((uint8_t *)tt_tensor_data(x))[i] = ((uint8_t *)tt_tensor_data(x))[i] != 0;
  return x;
}

/* The header as text, padded; NULL: no memory, or a name twice or not UTF-8 (*wrong is set to it). */
static char *make_header(tt_tensor *const *dense, const tt_named_tensor *tensors, int n, const tt_metadata *metadata, int n_metadata, const char **wrong) {
  json_t *header = json_object();
  json_t *meta = n_metadata ? json_object() : NULL;
  bool ok = header;
  for (int i = 0; ok && i < n_metadata; i++) {
    json_t *value = json_string(metadata[i].value);
    if (!value) *wrong = metadata[i].key;
    ok = value && json_object_set_new(meta, metadata[i].key, value) == 0;
  }
  if (ok && meta) ok = json_object_set(header, "__metadata__", meta) == 0;
  json_decref(meta);
  uint64_t at = 0;
  for (int i = 0; ok && i < n; i++) {
    tt_shape s = tt_tensor_shape(dense[i]);
    tt_dtype t = tt_tensor_dtype(dense[i]);
    uint64_t end = at + (uint64_t)tt_shape_count(&s) * tt_dtype_size(t);
    json_t *shape = json_array();
    for (int k = 0; shape && k < s.rank; k++) json_array_append_new(shape, json_integer(s.dim[k]));
    json_t *description = json_pack("{s:s, s:o, s:[I,I]}", "dtype", format_names[t], "shape", shape, "data_offsets", (json_int_t)at, (json_int_t)end);
    if (json_object_get(header, tensors[i].name) || !strcmp(tensors[i].name, "__metadata__")) *wrong = tensors[i].name;
    ok = description && !*wrong;
    if (!ok) json_decref(description);
    else if (json_object_set_new(header, tensors[i].name, description) != 0) ok = false, *wrong = tensors[i].name;
    at = end;
  }
  char *text = ok ? json_dumps(header, JSON_COMPACT) : NULL;
  json_decref(header);
  size_t length = text ? strlen(text) : 0, padded = (length + 7) / 8 * 8;
  char *whole = text ? malloc(padded + 9) : NULL;
  if (whole) {
    for (int i = 0; i < 8; i++) whole[i] = (char)(padded >> (8 * i));
    memcpy(whole + 8, text, length);
    memset(whole + 8 + length, ' ', padded - length);
    whole[8 + padded] = 0;
  }
  free(text);
  return whole;
}

tt_status tt_safetensors_save(const char *path, const tt_named_tensor *tensors, int n, const tt_metadata *metadata, int n_metadata, tt_error *err) {
  tt_tensor **dense = calloc((size_t)n + 1, sizeof *dense);
  rt_part *parts = calloc((size_t)n + 1, sizeof *parts);
  const char *wrong = NULL;
  char *header = NULL;
  tt_status status = TT_OK;
  if (!dense || !parts) status = tt_fail(err, TT_NO_MEMORY, "error: no memory to write %d tensors\n  at %s\n  fix: use a machine with more memory", n, path);
  for (int i = 0; status == TT_OK && i < n; i++)
    if (!(dense[i] = tt_tensor_dense(tensors[i].tensor, err))) status = TT_NO_MEMORY;
  if (status == TT_OK && !(header = make_header(dense, tensors, n, metadata, n_metadata, &wrong)))
    status = wrong ? tt_fail(err, TT_INVALID, "error: the name or text of %s cannot be written: it is there twice, reserved or not UTF-8\n  at %s\n  fix: give each tensor a name of its own in UTF-8", wrong, path)
                   : tt_fail(err, TT_NO_MEMORY, "error: no memory for the header of %d tensors\n  at %s\n  fix: use a machine with more memory", n, path);
  if (status == TT_OK) {
    parts[0] = (rt_part){header, 8 + strlen(header + 8)};
    for (int i = 0; i < n; i++) {
      tt_shape s = tt_tensor_shape(dense[i]);
      parts[i + 1] = (rt_part){tt_tensor_data(dense[i]), (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(dense[i]))};
    }
    status = rt_write_parts(path, parts, n + 1, err);
  }
  for (int i = 0; dense && i < n; i++) tt_tensor_free(dense[i]);
  free(dense);
  free(parts);
  free(header);
  return status;
}
