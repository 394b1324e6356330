/* cache_test.c: the cache of compiled kernels: the same numbers from it, damaged and foreign files are misses with one warning, sizes stay within the
 * limit, processes do not disturb each other; and no sequence of bytes passes for an image that is not one. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>

#include "codegen/cache.h"
#include "frontend/tinytorch.h"
#include "ir/ir.h"
#include "tests/runtime/files.h"

typedef struct { int kernels, cached, warnings; char warning[1000]; } notes;

static void on_kernel(void *user, const char *name, int done, int total, const double ms[3], bool cached) {
  notes *n = user;
  n->kernels++, n->cached += cached;
  cr_assert(done <= total && done == n->kernels);
}
static void on_warning(void *user, const char *text) {
  notes *n = user;
  n->warnings++;
  snprintf(n->warning, sizeof n->warning, "%s", text);
}

enum { N = 12 };

/* Two layers and a softmax, from fixed numbers: what comes out, to the bit. */
static notes compute(float out[N]) {
  notes n = {0};
  tt_error err = {0};
  tt_trace *t = tt_trace_new("net", false);
  tt_val x = tt_input(t, "x", TT_F32, TT_SHAPE(3, 20));
  tt_val h = tt_gelu(tt_matmul(x, tt_input(t, "w", TT_F32, TT_SHAPE(20, 17))), false);
  tt_output(t, "y", tt_softmax(tt_matmul(h, tt_input(t, "v", TT_F32, TT_SHAPE(17, 4))), 1));
  ir_graph *g;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  rt_program *p;
  tt_compile_options o = {.kernel = on_kernel, .warn = on_warning, .user = &n};
  cr_assert_eq(tt_compile(g, &o, &p, &err), TT_OK, "%s", err.message);
  rt_team *team = rt_team_new(1, &err);
  rt_instance *run = rt_instance_new(p, team, &err);
  for (uint32_t i = 0; i < p->n_slots; i++) {
    if (p->slots[i].kind != RT_INPUT) continue;
    tt_tensor *in = tt_tensor_new(TT_F32, &p->slots[i].shape, &err);
    float *v = tt_tensor_data(in);
    for (int64_t k = 0; k < tt_shape_count(&p->slots[i].shape); k++) v[k] = (float)sin((double)k * 1.7 + i);
    cr_assert_eq(rt_bind(run, p->slots[i].name, in, &err), TT_OK);
    tt_tensor_free(in);
  }
  cr_assert_eq(rt_run(run, &err), TT_OK);
  memcpy(out, tt_tensor_data(rt_bound(run, "y")), N * sizeof *out);
  rt_instance_free(run), rt_program_free(p), rt_team_free(team);
  ir_graph_free(g), tt_trace_free(t);
  return n;
}

static folder use_folder(void) {
  folder f = folder_new();
  setenv("TT_CACHE_DIR", in(&f, "deep/inside"), 1);
  unsetenv("TT_CACHE");
  unsetenv("TT_CACHE_MAX");
  return f;
}

typedef struct { int n, wrong; uint64_t bytes; char path[40][400]; int programs; char program[400]; } seen;      /* n, path: kernels */
static void see(void *user, const cg_cache_entry *e) {
  seen *s = user;
  s->wrong += e->wrong != NULL;
  if (!strncmp(e->about, "program ", 8)) {
    snprintf(s->program, sizeof s->program, "%s", e->path);
    s->programs++;
    return;
  }
  if (s->n < 40) snprintf(s->path[s->n], sizeof s->path[0], "%s", e->path);
  s->n++, s->bytes += e->bytes;
}
static seen look(void) {
  cg_cache c;
  seen s = {0};
  cg_cache_open(&c);
  cr_assert(cg_cache_each(&c, true, see, &s));
  return s;
}

Test(cache, the_same_bits_from_it) {
  folder f = use_folder();
  float first[N], second[N], without[N];
  notes a = compute(first), b = compute(second);
  cr_assert(a.kernels > 1 && a.cached == 0, "%d kernels, %d of them cached", a.kernels, a.cached);
  cr_assert(b.kernels == a.kernels && b.cached == a.kernels && b.warnings == 0, "%d of %d cached", b.cached, b.kernels);
  cr_assert(look().n == a.kernels && look().programs == 1);
  setenv("TT_CACHE", "0", 1);
  cr_assert_eq(compute(without).cached, 0);
  cr_assert(!memcmp(first, second, sizeof first) && !memcmp(first, without, sizeof first));
  folder_remove(&f);
}

static void damage(const char *path, int how) {
  static char data[1 << 20];
  size_t n = get(path, data, sizeof data);
  cr_assert(n > 200);
  if (how == 0) data[n / 2] ^= 4;
  if (how == 1) n -= 7;
  if (how == 2) n = 0;
  if (how == 3) data[20] ^= 1;               /* in the key */
  put(path, data, n);
}

Test(cache, a_damaged_file_is_a_miss_with_one_warning) {
  folder f = use_folder();
  float want[N], got[N];
  notes a = compute(want);
  for (int how = 0; how < 7; how++) {
    seen s = look();
    for (int i = 0; i < (how % 2 ? 2 : 1); i++) {
      if (how < 4) damage(s.path[i], how);
      if (how == 4) cr_assert_eq(chmod(s.path[i], 0666), 0);
      if (how == 5) cr_assert(unlink(s.path[i]) == 0 && symlink("/etc/passwd", s.path[i]) == 0);
      if (how == 6) { char other[400]; snprintf(other, sizeof other, "%s", s.path[1]); cr_assert(unlink(s.path[0]) == 0 && link(other, s.path[0]) == 0); }      /* another kernel's */
    }
    cr_assert(how >= 4 || look().wrong > 0);
    notes b = compute(got);
    int bad = how % 2 ? 2 : 1;
    cr_assert(b.warnings == 1 && b.cached == a.kernels - bad, "damage %d: %d warnings, %d of %d cached", how, b.warnings, b.cached, a.kernels);
    cr_assert(strstr(b.warning, "\n  at ") && strstr(b.warning, "\n  fix: "), "%s", b.warning);
    cr_assert(!memcmp(want, got, sizeof want));
    notes c = compute(got);
    cr_assert(c.warnings == 0 && c.cached == a.kernels, "damage %d is not mended", how);
  }
  folder_remove(&f);
}

/* A program's entry, damaged in each way, is made anew; its kernels are still there. One that stands for another program's is none. */
Test(cache, a_damaged_program_is_compiled_again_from_its_kernels) {
  folder f = use_folder();
  float want[N], got[N];
  notes a = compute(want);
  for (int how = 0; how < 4; how++) {
    damage(look().program, how);
    notes b = compute(got), c = compute(got);
    cr_assert(b.warnings == 1 && b.cached == a.kernels && c.warnings == 0 && c.cached == a.kernels, "damage %d: %d warnings, then %d", how, b.warnings, c.warnings);
    cr_assert(!memcmp(want, got, sizeof want) && look().programs == 1 && look().wrong == 0);
  }
  folder_remove(&f);
}

/* With the passes watched the pipeline runs, whatever is kept. */
static void on_pass(void *user, const char *pass, const ir_graph *g, double milliseconds) {
  (void)pass, (void)g, (void)milliseconds;
  ++*(int *)user;
}

static ir_graph *scaled(double by, const char *name, int line) {
  ir_graph *g = ir_graph_new("scaled");
  g->at_origin = ir_origin_add(g, "scaled.c", line, NULL, 0);
  ir_ref x = ir_input(g, name, TT_F32, TT_SHAPE(100));
  ir_output_add(g, "y", ir_ew2(g, IR_mul, x, ir_like(g, x, by)));
  return g;
}

Test(cache, a_program_is_found_by_all_that_it_depends_on) {
  folder f = use_folder();
  static const struct { double by; const char *name; int line; const char *skip; int programs; } cases[] = {
    {2, "x", 1, NULL, 1}, {2, "x", 1, NULL, 1}, {3, "x", 1, NULL, 2}, {2, "z", 1, NULL, 3}, {2, "x", 2, NULL, 4}, {2, "x", 1, "fuse", 5}, {2, "x", 1, NULL, 5}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tt_error err = {0};
    rt_program *p[2];
    int passes = 0;
    ir_graph *g = scaled(cases[i].by, cases[i].name, cases[i].line);
    tt_compile_options o = {.skip = cases[i].skip};
    cr_assert_eq(tt_compile(g, &o, &p[0], &err), TT_OK, "%s", err.message);
    cr_assert_eq(look().programs, cases[i].programs, "case %zu: %d programs", i, look().programs);
    o.watch = on_pass, o.user = &passes;
    cr_assert_eq(tt_compile(g, &o, &p[1], &err), TT_OK, "%s", err.message);
    cr_assert(passes > 5 && look().programs == cases[i].programs);
    cr_assert_str_eq(p[0]->steps[0].origin, p[1]->steps[0].origin);
    cr_assert_str_eq(p[0]->slots[0].name, cases[i].name);
    cr_assert(p[0]->n_steps == p[1]->n_steps && p[0]->n_slots == p[1]->n_slots && p[0]->arena_bytes == p[1]->arena_bytes);
    rt_program_free(p[0]), rt_program_free(p[1]);
    ir_graph_free(g);
  }
  folder_remove(&f);
}

Test(cache, a_folder_that_cannot_be_made_is_a_warning) {
  folder f = use_folder();
  put(in(&f, "file"), "x", 1);
  setenv("TT_CACHE_DIR", in(&f, "file/inside"), 1);
  float out[N];
  notes a = compute(out);
  cr_assert(a.kernels > 1 && a.cached == 0 && a.warnings == 1 && strstr(a.warning, "TT_CACHE_DIR"), "%s", a.warning);
  folder_remove(&f);
}

static rt_image image_of(unsigned char *data, size_t bytes, int seed) {
  for (size_t i = 0; i < bytes; i++) data[i] = (unsigned char)(i * 7 + (size_t)seed);
  return (rt_image){data, bytes, 16};
}

Test(cache, keeps_within_its_limit_and_drops_what_was_used_longest_ago) {
  folder f = use_folder();
  setenv("TT_CACHE_MAX", "20K", 1);
  unsigned char data[3000];
  cg_cache c;
  cg_cache_open(&c);
  cr_assert_eq(c.limit, 20 << 10);
  for (int i = 0; i < 30; i++) {
    rt_image image = image_of(data, sizeof data, i), back;
    rt_key key = rt_key_of(&i, sizeof i);
    cg_cache_put(&c, &key, "made up", &image);
    char path[4200], hex[33];
    snprintf(path, sizeof path, "%s/%s.kernel", c.folder, rt_key_text(&key, hex));
    struct timespec past[2] = {{.tv_sec = 1000 + i}, {.tv_sec = 1000 + i}};
    cr_assert_eq(utimensat(AT_FDCWD, path, past, 0), 0);
    if (i == 0) {
      cr_assert(cg_cache_get(&c, &key, &back) && back.bytes == sizeof data && !memcmp(back.data, data, sizeof data));      /* it has been used now */
      free(back.data);
    }
  }
  char left[4200];
  snprintf(left, sizeof left, "%s/00000000000000000000000000000000.1.1.part", c.folder);      /* of a process that was killed */
  put(left, data, sizeof data);
  cr_assert_eq(utimensat(AT_FDCWD, left, (struct timespec[2]){{.tv_sec = 1000}, {.tv_sec = 1000}}, 0), 0);
  cg_cache_trim(&c);
  seen s = look();
  cr_assert(s.bytes <= 20 << 10 && s.n == 6 && s.wrong == 0, "%d files, %d bytes", s.n, (int)s.bytes);
  rt_image back;
  for (int i = 0; i < 30; i++) {
    rt_key key = rt_key_of(&i, sizeof i);
    bool there = cg_cache_get(&c, &key, &back);
    cr_assert_eq(there, i == 0 || i >= 25, "entry %d", i);
    free(back.data);
  }
  folder_remove(&f);
}

Test(cache, many_processes_share_it) {
  folder f = use_folder();
  float want[N];
  setenv("TT_CACHE", "0", 1);
  compute(want);                             /* LLVM is open before the processes part */
  unsetenv("TT_CACHE");
  enum { PROCESSES = 6 };
  pid_t child[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) {
    if ((child[i] = fork())) continue;
    bool ok = true;
    for (int k = 0; k < 4; k++) {
      float got[N];
      ok = ok && compute(got).warnings == 0 && !memcmp(want, got, sizeof want);
    }
    _exit(ok ? 0 : 1);
  }
  for (int i = 0; i < PROCESSES; i++) {
    int status;
    cr_assert(waitpid(child[i], &status, 0) == child[i] && status == 0, "process %d failed", i);
  }
  seen s = look();
  float got[N];
  notes a = compute(got);
  cr_assert(s.wrong == 0 && s.n == a.kernels && s.programs == 1 && a.cached == a.kernels, "%d files, %d wrong, %d kernels", s.n, s.wrong, a.kernels);
  folder_remove(&f);
}

Test(cache, keys_differ_by_kernel_and_cpu) {
  cg_cpu cpu;
  cr_assert_eq(cg_cpu_get("x86-64-v2", &cpu, NULL), TT_OK);
  rt_key a = cg_cache_key("kernel k() {}", &cpu), b = cg_cache_key("kernel k() { }", &cpu);
  cr_assert(memcmp(&a, &b, sizeof a));
  cpu.name = "x86-64-v3";
  b = cg_cache_key("kernel k() {}", &cpu);
  cr_assert(memcmp(&a, &b, sizeof a));
}

/* ---- the form of a file */

static uint8_t *file_of(size_t image_bytes, size_t *bytes, rt_key *key) {
  *bytes = RT_IMAGE_HEAD + image_bytes;
  uint8_t *file = malloc(*bytes), *data = file + RT_IMAGE_HEAD;
  rt_image image = image_of(data, image_bytes, 3);
  *key = rt_key_of("x", 1);
  rt_image_head(&image, key, "about it", file);
  return file;
}

/* On a block of exactly its size, so that reading beyond it is seen. */
static const char *parse(const uint8_t *file, size_t bytes, const rt_key *key) {
  uint8_t *copy = malloc(bytes ? bytes : 1);
  memcpy(copy, file, bytes);
  rt_image image;
  char about[RT_IMAGE_ABOUT];
  const char *why = rt_image_parse(copy, bytes, key, &image, about);
  if (!why) cr_assert((uint8_t *)image.data >= copy && (uint8_t *)image.data + image.bytes <= copy + bytes && image.entry < image.bytes && memchr(about, 0, sizeof about));
  else cr_assert(!image.data && !image.bytes);
  free(copy);
  return why;
}

Test(image, every_bit_and_every_length_is_checked) {
  size_t bytes;
  rt_key key, other = rt_key_of("y", 1);
  uint8_t *file = file_of(300, &bytes, &key);
  cr_assert(!parse(file, bytes, &key) && !parse(file, bytes, NULL) && parse(file, bytes, &other));
  for (size_t bit = 0; bit < bytes * 8; bit++) {
    file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    cr_assert(parse(file, bytes, &key), "bit %zu", bit);
    file[bit / 8] ^= (uint8_t)(1 << bit % 8);
  }
  for (size_t n = 0; n < bytes; n++) cr_assert(parse(file, n, &key), "%zu bytes", n);
  uint8_t *longer = realloc(file, bytes + 100);
  memset(longer + bytes, 0, 100);
  cr_assert(parse(longer, bytes + 1, &key) && parse(longer, bytes + 100, &key) && !parse(longer, bytes, &key));
  free(longer);
}

/* Heads whose checksum is right but whose fields are anything: nothing but a sound one passes. */
Test(image, sizes_of_any_head_are_checked) {
  uint64_t state = 7;
  unsigned passed = 0;
  for (int i = 0; i < 200000; i++) {
    size_t bytes;
    rt_key key;
    uint8_t data[256];
    state = state * 6364136223846793005u + 1442695040888963407u;
    static const uint64_t odd[] = {0, 1, 2, 15, 16, 127, 128, 255, 256, 257, 1u << 31, UINT32_MAX, INT64_MAX, UINT64_MAX - 127, UINT64_MAX};
    rt_image image = image_of(data, sizeof data, i);
    image.entry = odd[state >> 60 & 7];
    if (state >> 50 & 1) image.entry = odd[(state >> 40) % (sizeof odd / sizeof *odd)];
    key = rt_key_of(&i, sizeof i);
    uint8_t file[RT_IMAGE_HEAD + sizeof data];
    memcpy(file + RT_IMAGE_HEAD, data, sizeof data);
    rt_image_head(&image, &key, "about", file);
    bytes = sizeof file;
    const char *why = parse(file, bytes, &key);
    cr_assert_eq(!why, image.entry < sizeof data, "entry %zu: %s", image.entry, why ? why : "passes");
    passed += !why;
  }
  cr_assert(passed > 10000);
}
