/* .safetensors and .npy: what is written is read, files of other programs are read, damaged ones are errors that say where. */
#define _GNU_SOURCE
#include "files.h"

#include "runtime/runtime.h"

static tt_tensor *filled(tt_dtype t, tt_shape s, uint32_t stream) {
  tt_tensor *wide = tt_tensor_new(TT_F64, &s, NULL);
  for (int64_t i = 0; i < tt_shape_count(&s); i++) ((double *)tt_tensor_data(wide))[i] = (double)(tt_random_word(3, 0, stream, (uint64_t)i) % 200);
  tt_tensor *x = tt_tensor_cast(wide, t, NULL);
  tt_tensor_free(wide);
  return x;
}
static bool same(tt_tensor *a, tt_tensor *b) {
  tt_shape s = tt_tensor_shape(a), q = tt_tensor_shape(b);
  return tt_tensor_dtype(a) == tt_tensor_dtype(b) && tt_shape_equal(&s, &q) && !memcmp(tt_tensor_data(a), tt_tensor_data(b), (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(a)));
}

Test(safetensors, round_trip_of_every_type) {
  folder f = folder_new();
  tt_named_tensor list[TT_N_DTYPES + 2];
  tt_shape shapes[] = {{0}, {1, {7}}, {2, {3, 5}}, {3, {2, 0, 4}}, {8, {1, 2, 1, 2, 1, 2, 1, 3}}};
  int n = 0;
  for (int t = 0; t < TT_N_DTYPES; t++, n++) list[n] = (tt_named_tensor){tt_dtype_name((tt_dtype)t), filled((tt_dtype)t, shapes[t % 5], (uint32_t)t)};
  tt_tensor *whole = filled(TT_F32, (tt_shape){2, {4, 6}}, 99);
  list[n++] = (tt_named_tensor){"a \"strange\" name\n\xc3\xa9", tt_tensor_permute(whole, (int[]){1, 0}, NULL)};
  tt_metadata meta[] = {{"format", "pt"}, {"text", "{\"quoted\": 1}\n"}};
  cr_assert_eq(tt_safetensors_save(in(&f, "x.safetensors"), list, n, meta, 2, NULL), TT_OK);
  tt_error err = {0};
  tt_safetensors *file = tt_safetensors_open(f.path, &err);
  cr_assert_not_null(file, "%s", err.message);
  cr_assert_eq(tt_safetensors_count(file), n);
  cr_assert_str_eq(tt_safetensors_metadata(file, "text"), meta[1].value);
  cr_assert_null(tt_safetensors_metadata(file, "nothing"));
  for (int i = 0; i < n; i++) {
    tt_tensor *x = tt_safetensors_get(file, list[i].name, NULL), *dense = tt_tensor_dense(list[i].tensor, NULL);
    cr_assert(x && same(x, dense), "%s", list[i].name);
    tt_tensor_free(x);
    tt_tensor_free(dense);
    tt_tensor_free(list[i].tensor);
  }
  cr_assert_null(tt_safetensors_get(file, "nothing", &err));
  cr_assert_null(tt_safetensors_get(file, "__metadata__", NULL));
  cr_assert_eq(err.status, TT_INVALID);
  uint8_t head[8];
  cr_assert_eq(get(f.path, head, 8), 8);
  cr_assert_eq(head[0] % 8, 0);
  tt_safetensors_close(file);
  tt_tensor_free(whole);
  folder_remove(&f);
}

Test(safetensors, wrong_names_are_not_written) {
  folder f = folder_new();
  tt_tensor *x = tt_tensor_new(TT_F32, &(tt_shape){0}, NULL);
  const char *bad[] = {"a", "__metadata__", "\xff\xfe"};
  for (int i = 0; i < 3; i++) {
    tt_error err = {0};
    cr_assert_eq(tt_safetensors_save(in(&f, "x"), (tt_named_tensor[]){{"a", x}, {bad[i], x}}, 2, NULL, 0, &err), TT_INVALID);
    cr_assert_neq(access(f.path, F_OK), 0);
  }
  tt_error err = {0};
  cr_assert_eq(tt_safetensors_save(in(&f, "none/x"), (tt_named_tensor[]){{"a", x}}, 1, NULL, 0, &err), TT_IO);
  cr_assert_not_null(strstr(err.message, "none/x"), "%s", err.message);
  tt_tensor_free(x);
  folder_remove(&f);
}

/* A file in memory from its header and the number of data bytes. */
static tt_safetensors *open_text(const char *header, size_t data, tt_error *err, uint8_t *room) {
  uint64_t n = strlen(header);
  memcpy(room, &n, 8);
  memcpy(room + 8, header, n);
  memset(room + 8 + n, 1, data);
  return tt_safetensors_open_memory(room, 8 + n + data, "f.safetensors", err);
}

Test(safetensors, unaligned_data_of_other_writers) {
  static uint8_t room[1000];
  tt_safetensors *f = open_text("{\"b\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[1,9]},\"a\":{\"data_offsets\":[0,1],\"shape\":[],\"dtype\":\"U8\"}}  ", 9, NULL, room);
  cr_assert_not_null(f);
  cr_assert_str_eq(tt_safetensors_name(f, 0), "a");
  tt_tensor *b = tt_safetensors_get(f, "b", NULL);
  uint64_t bits;
  memcpy(&bits, tt_tensor_data(b), 8);
  cr_assert_eq(bits, 0x0101010101010101u);
  tt_tensor_free(b);
  tt_safetensors_close(f);
}

Test(safetensors, damaged_files) {
  static const struct { const char *header; size_t data; const char *says; } files[] = {
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "within the 7 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "the end of the file to begin at offset 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "12 bytes of data for f32[3], not 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "a to begin at offset 0"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "b to begin at offset 2"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", 8, "fit in 64 bits"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,0,9223372036854775807],\"data_offsets\":[0,0]}}", 0, "fit in 64 bits"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "dimensions that are integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "dimensions that are integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "0 <= begin <= end"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two \"data_offsets\""},
    {"{\"a\":{\"dtype\":\"Q7\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "Q7"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "8 dimensions"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "object of strings"},
    {"[1]", 0, "JSON object"}, {"{\"a\":", 0, "JSON object"}, {"", 0, "JSON object"}, {" {}", 0, "JSON object"},
  };
  static uint8_t room[1000];
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    tt_error err = {0};
    cr_assert_null(open_text(files[i].header, files[i].data, &err, room), "%s", files[i].header);
    cr_assert_not_null(strstr(err.message, files[i].says), "%s gives %s", files[i].header, err.message);
    cr_assert_not_null(strstr(err.message, "f.safetensors, byte"), "%s", err.message);
  }
  for (uint64_t n = 0; n < 20; n++) {                                        /* lengths beyond the file */
    uint64_t length = n < 10 ? UINT64_MAX - n : 3 + n;
    memcpy(room, &length, 8);
    tt_error err = {0};
    cr_assert_null(tt_safetensors_open_memory(room, n < 10 ? 8 + n : n - 10, "f.safetensors", &err));
    cr_assert_eq(err.status, TT_FORMAT);
  }
}

/* Every byte of a file changed, and every prefix of it: an error or a file, never more. */
Test(safetensors, every_byte_damaged) {
  const char *header = "{\"a\":{\"dtype\":\"F16\",\"shape\":[2,1],\"data_offsets\":[0,4]},\"__metadata__\":{\"k\":\"v\"}}";
  static uint8_t room[1000], copy[1000];
  tt_safetensors_close(open_text(header, 4, NULL, room));
  size_t n = 8 + strlen(header) + 4;
  for (size_t i = 0; i <= n; i++)
    for (int bit = 0; bit < 8; bit++) {
      memcpy(copy, room, n);
      if (i < n) copy[i] ^= (uint8_t)(1 << bit);
      tt_safetensors *f = tt_safetensors_open_memory(copy, n, "f", NULL);
      tt_safetensors_close(f);
      if (i == n) cr_assert_not_null(f);
    }
  for (size_t i = 0; i < n; i++) cr_assert_null(tt_safetensors_open_memory(room, i, "f", NULL));
}

Test(npy, round_trip) {
  folder f = folder_new();
  tt_shape shapes[] = {{0}, {1, {7}}, {2, {3, 5}}, {3, {2, 0, 4}}};
  for (int t = 0; t < TT_N_DTYPES; t++)
    for (int s = 0; s < 4; s++) {
      tt_tensor *x = filled((tt_dtype)t, shapes[s], (uint32_t)t);
      tt_error err = {0};
      if (t == TT_BF16) cr_assert_eq(tt_npy_save(in(&f, "x.npy"), x, &err), TT_UNSUPPORTED);
      else {
        cr_assert_eq(tt_npy_save(in(&f, "x.npy"), x, &err), TT_OK);
        tt_tensor *y = tt_npy_load(f.path, &err);
        cr_assert(y && same(x, y), "%s", err.message);
        tt_tensor_free(y);
      }
      tt_tensor_free(x);
    }
  folder_remove(&f);
}

static size_t npy_text(uint8_t *to, int version, const char *header, size_t data) {
  size_t n = strlen(header), start = version == 1 ? 10 : 12;
  memcpy(to, "\x93NUMPY", 6);
  to[6] = (uint8_t)version, to[7] = 0, to[8] = (uint8_t)n, to[9] = (uint8_t)(n >> 8);
  if (version > 1) to[10] = to[11] = 0;
  memcpy(to + start, header, n);
  for (size_t i = 0; i < data; i++) to[start + n + i] = (uint8_t)i;
  return start + n + data;
}

Test(npy, fortran_order_and_versions) {
  folder f = folder_new();
  uint8_t room[500];
  for (int version = 1; version <= 3; version++) {
    size_t n = npy_text(room, version, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }   \n", 6);
    put(in(&f, "x.npy"), room, n);
    tt_tensor *x = tt_npy_load(f.path, NULL);
    for (int64_t i = 0; i < 2; i++)
      for (int64_t k = 0; k < 3; k++) cr_assert_eq(tt_tensor_at(x, (int64_t[]){i, k}), i + 2 * k);
    tt_tensor_free(x);
    for (size_t i = 0; i < n; i++) {                                         /* every prefix */
      put(f.path, room, i);
      tt_error err = {0};
      cr_assert_null(tt_npy_load(f.path, &err));
      cr_assert_eq(err.status, TT_FORMAT);
    }
  }
  folder_remove(&f);
}

Test(npy, damaged) {
  static const struct { const char *header; size_t data; const char *says; } files[] = {
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", 8, "little-endian"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 9, "8 bytes for f32[2], there are 9"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 8, "fits in 64 bits"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296,2), }", 8, "there are 8"},
    {"{'descr': '<f4', 'fortran_order': maybe, 'shape': (2,), }", 8, "True or False"},
    {"{'descr': '<f4', 'shape': (2,), }", 8, "'fortran_order'"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2), }", 8, "8 dimensions"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2", 8, "',' or ')'"},
    {"{'descr': '<f4", 8, "the end of a string"},
    {"nothing", 8, "'{'"},
  };
  folder f = folder_new();
  uint8_t room[500];
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    put(in(&f, "x.npy"), room, npy_text(room, 1, files[i].header, files[i].data));
    tt_error err = {0};
    cr_assert_null(tt_npy_load(f.path, &err));
    cr_assert(err.status == TT_FORMAT && strstr(err.message, files[i].says), "%s gives %s", files[i].header, err.message);
  }
  tt_error err = {0};
  cr_assert_null(tt_npy_load(in(&f, "none.npy"), &err));
  cr_assert_eq(err.status, TT_IO);
  cr_assert_null(tt_npy_load(f.dir, NULL));
  folder_remove(&f);
}

/* A file is there whole or as it was; no temporary stays. */
Test(files, replaced_at_once) {
  folder f = folder_new();
  char text[10] = "";
  cr_assert_eq(rt_write_file(in(&f, "a"), "first", 5, NULL), TT_OK);
  cr_assert_eq(rt_write_parts(f.path, (rt_part[]){{"sec", 3}, {"", 0}, {"ond", 3}}, 3, NULL), TT_OK);
  cr_assert_eq(get(f.path, text, 10), 6);
  cr_assert_str_eq(text, "second");
  cr_assert_eq(unlink(f.path), 0);
  cr_assert_eq(rmdir(f.dir), 0);                                             /* empty: nothing else is in it */
}
