/* The text form: print, parse, print gives the same bytes, for every op of the table and for odd names and numbers; mistakes are
 * found where they are; and no text, however broken, does harm. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "passes/passes.h"
#include "tests/fuzz/parse_fuzz.c"

static ir_graph *parse(const char *text) {
  tt_error err = {0};
  ir_graph *g = ir_parse(text, strlen(text), "t", &err);
  cr_assert(g, "%s\n%s", err.message, text);
  return g;
}

/* g prints, and its text reads back to the same bytes; which are `text`, when that is given. */
static void check_bytes(ir_graph *g, const char *text) {
  cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
  char *first = ir_print(g);
  cr_assert(first);
  ir_graph *h = parse(first);
  char *second = ir_print(h);
  cr_assert_str_eq(first, second);
  if (text) cr_assert_str_eq(first, text);
  free(first), free(second);
  ir_graph_free(h);
}

static void same_bytes(const char *text) {
  ir_graph *g = parse(text);
  check_bytes(g, text);
  ir_graph_free(g);
}

static const char example[] =
  "func @f(%x: f32[2,3], param %w: f32[3,4], state %m: f32[2,4]) -> f32[2,4] arena=64 {\n"
  "  %3 = const(value=[0,0.5,inf,nan,1,2,3,-0]) : f32[2,4]\n"
  "  kernel @k0(%x, %w, %3) -> %h [kind=1, tile=[6,16], reduce=[]] {\n"
  "    %z = matmul(%x, %w) : f32[2,4]  # net.c:12 fc1\n"
  "    %h = add(%z, %3) : f32[2,4] @0  # net.c:12 fc1; \"my net.c\":13; c.c:-1 \"a b\"\n"
  "  }\n"
  "  %6 = neg(%h) : f32[2,4]\n"
  "  kernel @k1(%6) -> %7, %8 [] {\n"
  "    %7 = exp(%6) : f32[2,4]\n"
  "    %8 = log(%7) : f32[2,4]\n"
  "  }\n"
  "  %9 = mul(%7, %8) : f32[2,4]\n"
  "  assign(%m, %9)  # net.c:20\n"
  "  return out.h=%h\n"
  "}\n";

Test(text, example) {
  same_bytes(example);
  ir_graph *g = parse(example);
  ir_ref m = ir_find(g, "m"), w = ir_find(g, "w"), x = ir_find(g, "x");
  cr_assert(m && w && x);
  cr_assert_eq(ir_int(ir_at(g, w), "trainable"), 1);
  cr_assert_eq(ir_int(ir_at(g, m), "trainable"), 0);
  cr_assert_eq(ir_at(g, x)->op, IR_input);
  cr_assert_eq(g->arena_bytes, 64);
  cr_assert_eq(g->n_kernels, 3);
  uint32_t n;
  const int64_t *tile = ir_kernel_get(g, 1, "tile", &n);
  cr_assert(n == 2 && tile[0] == 6 && tile[1] == 16);
  ir_ref h = g->outputs[0].value;
  cr_assert_str_eq(g->outputs[0].name, "out.h");
  cr_assert_str_eq(ir_at(g, h)->name, "h");
  cr_assert_eq(ir_at(g, h)->place, 0);
  cr_assert_eq(ir_at(g, h)->region, 1);
  cr_assert_null(ir_at(g, ir_at(g, h)->args[1])->name);
  const ir_origin *o = &g->origins[ir_at(g, h)->origin];
  cr_assert(!strcmp(o->file, "net.c") && o->line == 12 && !strcmp(o->scope, "fc1"));
  o = &g->origins[o->next];
  cr_assert(!strcmp(o->file, "my net.c") && o->line == 13 && !o->scope);
  cr_assert_eq(g->n_effects, 1);
  cr_assert_eq(ir_at(g, g->effects[0])->args[0], m);
  cr_assert_not(g->plain);
  ir_graph_free(g);
}

Test(text, white_space_and_comments) {
  static const char odd[] =
    "# RUN: nothing\n\n  # another\r\nfunc @f(%x:f32[2 , 3],\n  param %w :f32[3])->f32[2,3]{ %007=broadcast( %w,shape=[2,3] , dims=[ 1 ]):f32[2,3]\n"
    "# in between\n  %12 = \n add(%x,\n%7) : f32[2,3] @ 5\n return %12 } # end\n# CHECK: add\n";
  static const char clean[] =
    "func @f(%x: f32[2,3], param %w: f32[3]) -> f32[2,3] {\n"
    "  %2 = broadcast(%w, dims=[1]) : f32[2,3]\n"
    "  %3 = add(%x, %2) : f32[2,3] @5\n"
    "  return %3\n"
    "}\n";
  char *text = strdup(odd);
  strstr(text, " # end")[1] = '\n';            /* a comment has its line to itself */
  strstr(text, "\n end")[1] = '#';
  ir_graph *g = parse(text);
  check_bytes(g, clean);
  ir_graph_free(g);
  free(text);
}

Test(text, names) {
  ir_graph *g = ir_graph_new("my graph");
  tt_shape s = {.rank = 1, .dim = {3}};
  ir_ref a = ir_input(g, "0.weight", TT_F32, s), b = ir_input(g, "12", TT_F32, s), c = ir_input(g, "a \"b\"\\\n\t\x01\x7f\xc3\xa9", TT_F32, s);
  ir_ref d = ir_ew2(g, IR_add, a, b), e = ir_ew2(g, IR_mul, d, c), f = ir_ew1(g, IR_neg, e);
  ir_name(g, d, "7");
  ir_name(g, e, "late");
  ir_ref late = ir_input(g, "late", TT_F32, s);
  g->at_origin = ir_origin_add(g, "dir with space/a;b.c", 7, "sc\"ope", ir_origin_add(g, NULL, 0, NULL, 0));
  ir_ref h = ir_ew2(g, IR_sub, f, late);
  ir_output_add(g, "3", h);
  ir_output_add(g, NULL, d);
  check_bytes(g,
    "func @\"my graph\"(%0.weight: f32[3], %\"12\": f32[3], %\"a \\\"b\\\"\\\\\\n\\t\\x01\\x7f\xc3\xa9\": f32[3], %late: f32[3]) -> f32[3], f32[3] {\n"
    "  %\"7\" = add(%0.weight, %\"12\") : f32[3]\n"
    "  %5 = mul(%\"7\", %\"a \\\"b\\\"\\\\\\n\\t\\x01\\x7f\xc3\xa9\") : f32[3]\n"
    "  %6 = neg(%5) : f32[3]\n"
    "  %7 = sub(%6, %late) : f32[3]  # \"dir with space/a;b.c\":7 \"sc\\\"ope\"; ?:0\n"
    "  return \"3\"=%7, %\"7\"\n"
    "}\n");
  ir_graph_free(g);
}

Test(text, nothing_and_everything) {
  same_bytes("func @f() -> () {\n  return\n}\n");
  same_bytes("func @f(%x: bool[0,5]) -> bool[0,5], bool[0,5] {\n  return %x, again=%x\n}\n");
  same_bytes("func @f() -> f32[0,9223372036854775807] {\n  %0 = const(value=[]) : f32[0,9223372036854775807]\n  return %0\n}\n");
  /* Without outputs and effects all rows are printed; with them, those that they need. */
  same_bytes("func @f(%x: f32[]) -> () {\n  %a = neg(%x) : f32[]\n  return\n}\n");
  ir_graph *g = parse("func @f(%x: f32[]) -> f32[] {\n  %a = neg(%x) : f32[]\n  return %x\n}\n");
  check_bytes(g, "func @f(%x: f32[]) -> f32[] {\n  return %x\n}\n");
  ir_graph_free(g);
}

/* Rows for every op of the table, made by hand where its attributes ask for it. */
static const char all_ops[] =
  "func @step(state %h: f32[6], %row: f32[6]) -> f32[6] {\n"
  "  %next = add(%h, %row) : f32[6]\n"
  "  assign(%h, %next)\n"
  "  return %next\n"
  "}\n\n"
  "func @all(%x: f32[4,6], param %p: f32[4,6], %i: i64[4,6], %b: bool[4,6], %seed: u64[], %step: u64[], %start: i64[2], %im: f32[2,3,8,8], %s: f32[], %heads: f32[2,3,4], %rows: f32[1,6], %seen: bool[1,3,3], %live: i64[]) -> () {\n"
  "  %const = const(value=1.5) : f32[]\n"
  "  %iota = iota(axis=1) : i32[4,6]\n"
  "  %random = random(%seed, %step, stream=3) : u16[5]\n"
  "  %select = select(%b, %x, %p) : f32[4,6]\n"
  "  %cast = cast(%x) : f16[4,6]\n"
  "  %bitcast = bitcast(%x) : u32[4,6]\n"
  "  %stop_gradient = stop_gradient(%x) : f32[4,6]\n"
  "  %reshape = reshape(%x) : f32[24]\n"
  "  %permute = permute(%x, perm=[1,0]) : f32[6,4]\n"
  "  %broadcast = broadcast(%x, dims=[0,2]) : f32[4,5,6]\n"
  "  %slice = slice(%x, start=[0,1], stop=[4,6], step=[1,2]) : f32[4,3]\n"
  "  %pad = pad(%x, %s, lo=[0,1], hi=[2,0], interior=[0,1]) : f32[6,12]\n"
  "  %concat = concat(%x, %p, %x, axis=0) : f32[12,6]\n"
  "  %reverse = reverse(%x, axes=[0,1]) : f32[4,6]\n"
  "  %unfold = unfold(%x, axis=1, size=3, stride=1, dilation=2) : f32[4,2,3]\n"
  "  %fold = fold(%unfold, axis=1, length=6, stride=1, dilation=2) : f32[4,6]\n"
  "  %sum = sum(%x, axes=[0]) : f32[6]\n"
  "  %prod = prod(%x, axes=[0,1]) : f32[]\n"
  "  %amax = amax(%x, axes=[]) : f32[4,6]\n"
  "  %amin = amin(%x, axes=[1]) : f32[4]\n"
  "  %argmax = argmax(%x, axis=1) : i64[4]\n"
  "  %argmin = argmin(%x, axis=0) : i64[6]\n"
  "  %cumsum = cumsum(%x, axis=0, exclusive=1) : f32[4,6]\n"
  "  %matmul = matmul(%x, %p, ta=1, split=2) : f32[2,6,6]\n"
  "  %images = reshape(%im) : f32[2,1,3,8,8]\n"
  "  %weights = const(value=[0,1,2,3,4,5,6,7,8,9,10,11]) : f32[1,2,3,2,1]\n"
  "  %conv = conv(%images, %weights, stride=[2,1], lo=[1,0], hi=[0,0], dilation=[1,1], x_dilation=[1,1], split=3) : f32[3,2,1,2,4,8]\n"
  "  %u = broadcast(%s, dims=[]) : f32[1,16,3,2]\n"
  "  %attention = attention(%heads, %heads, %heads, %seen, %live, scale=0.5, causal=1, mask=1, length=1) : f32[2,3,4]\n"
  "  %lse = attention_lse(%heads, %heads, %heads, scale=0.5) : f32[2,3]\n"
  "  %dq = attention_dq(%heads, %heads, %heads, %heads, %lse, %lse, scale=0.5) : f32[2,3,4]\n"
  "  %dk = attention_dk(%heads, %heads, %heads, %heads, %lse, %lse, scale=0.5) : f32[2,3,4]\n"
  "  %dv = attention_dv(%heads, %heads, %heads, %heads, %lse, %lse, scale=0.5) : f32[2,3,4]\n"
  "  %winograd = winograd(%images, %u, tile=2, size=[2,6,6]) : f32[2,1,2,6,6]\n"
  "  %gather = gather(%x, %i, axis=0) : f32[4,6]\n"
  "  %scatter_add = scatter_add(%x, %i, %p, axis=1) : f32[4,6]\n"
  "  %argsort = argsort(%x, axis=1, descending=1) : i64[4,6]\n"
  "  %dynamic_slice = dynamic_slice(%x, %start, sizes=[2,2]) : f32[2,2]\n"
  "  %dynamic_update_slice = dynamic_update_slice(%x, %dynamic_slice, %start) : f32[4,6]\n"
  "  %row = reshape(%rows) : f32[6]\n"
  "  %scan = scan(%row, %x, body=@step, carries=1, xs=1, length=4, reversed=1, result=1) : f32[4,6]\n"
  "  %softmax = softmax(%x, axis=1) : f32[4,6]\n"
  "  %log_softmax = log_softmax(%x, axis=0) : f32[4,6]\n"
  "  %gelu = gelu(%x, tanh=1) : f32[4,6]\n"
  "  %silu = silu(%x) : f32[4,6]\n"
  "  %layer_norm = layer_norm(%x, %sum, %sum, axes=1, eps=1e-05) : f32[4,6]\n"
  "  %batch_mean = batch_mean(%im) : f32[3]\n"
  "  %batch_var = batch_var(%im) : f32[3]\n"
  "  %batch_norm = batch_norm(%im, %batch_mean, %batch_var, eps=1e-05) : f32[2,3,8,8]\n"
  "  %dropout = dropout(%x, %seed, %step, p=0.1, stream=7) : f32[4,6]\n"
  "  %max_pool = max_pool(%im, size=[2,2], stride=[2,2], lo=[0,0], hi=[1,1], dilation=[1,1]) : f32[2,3,4,4]\n"
  "  %avg_pool = avg_pool(%im, size=[2,2], stride=[2,2], lo=[0,0], hi=[0,0], count_pad=1) : f32[2,3,4,4]\n";

Test(text, every_op) {
  size_t n = sizeof all_ops, size = n + 200 * IR_N_OPS;
  char *text = malloc(size);
  strcpy(text, all_ops);
  bool seen[IR_N_OPS] = {[IR_input] = true, [IR_param] = true, [IR_assign] = true};
  for (int op = 1; op < IR_N_OPS; op++) {
    if (!ir_ops[op].ew) continue;
    const char *x = ir_ops[op].takes & 1 << TT_F32 ? "%x" : "%i", *type = ir_ops[op].gives_bool ? "bool" : *x == '%' && x[1] == 'x' ? "f32" : "i64";
    size_t at = strlen(text);
    snprintf(text + at, size - at, "  %%%s = %s(%s%s%s) : %s[4,6]\n", ir_ops[op].name, ir_ops[op].name, x, ir_ops[op].arity > 1 ? ", " : "", ir_ops[op].arity > 1 ? x : "", type);
  }
  strcat(text, "  return\n}\n");
  same_bytes(text);
  ir_graph *g = parse(text);
  for (ir_ref r = 1; r < g->n_nodes; r++) seen[ir_at(g, r)->op] = true;
  for (int op = 1; op < IR_N_OPS; op++) cr_expect(seen[op], "%s is not in the text", ir_ops[op].name);
  ir_graph_free(g);
  free(text);
}

/* A constant of these bytes prints and reads back to the same bytes (any NaN: to some NaN). */
static void same_values(tt_dtype t, const void *data, int64_t n) {
  ir_graph *g = ir_graph_new("f");
  ir_output_add(g, NULL, ir_const(g, t, (tt_shape){.rank = 1, .dim = {n}}, data));
  cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
  char *text = ir_print(g);
  ir_graph *h = parse(text);
  const char *back = h->blobs[ir_int(ir_at(h, h->outputs[0].value), "value")].data;
  size_t size = tt_dtype_size(t);
  for (int64_t i = 0; i < n; i++) {
    double v = ir_load_double(t, data, i), w = ir_load_double(t, back, i);
    cr_assert(v != v ? w != w : !memcmp((const char *)data + i * size, back + i * size, size), "%s: element %lld: %.17g came back as %.17g", tt_dtype_name(t), (long long)i, v, w);
  }
  free(text);
  ir_graph_free(g), ir_graph_free(h);
}

Test(text, numbers) {
  uint16_t *half = malloc(65536 * sizeof *half);
  for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
  same_values(TT_F16, half, 65536);
  same_values(TT_BF16, half, 65536);
  free(half);
  enum { N = 20000 };
  uint64_t *bits = malloc(N * sizeof *bits), state = 1;
  for (int i = 0; i < N; i++) state = state * 6364136223846793005u + 1442695040888963407u, bits[i] = state ^ state >> 33;
  same_values(TT_F32, bits, 2 * N);
  same_values(TT_F64, bits, N);
  same_values(TT_I64, bits, N);
  same_values(TT_U64, bits, N);
  same_values(TT_I8, bits, 8 * N);
  free(bits);
  same_values(TT_F64, (double[]){0.1, 1e300, 5e-324, -0.0, 1.0 / 3, 0x1.fffffffffffffp1023, 123456789012345678.0}, 7);
  same_values(TT_F32, (float[]){0.1f, 1e-45f, 3e38f, -0.0f, 1.f / 3, 16777216, 0x1p-126f}, 7);
  same_values(TT_I64, (int64_t[]){INT64_MIN, INT64_MAX, 0, -1}, 4);
  same_values(TT_U64, (uint64_t[]){0, UINT64_MAX, (uint64_t)INT64_MAX + 1, 999999999999999999u, 1000000000000000000u}, 5);
  same_values(TT_BOOL, (uint8_t[]){0, 1, 1}, 3);
  same_bytes("func @f() -> f32[7] {\n  %0 = const(value=[0.1,1e-45,3e+38,-0,0.33333334,16777216,nan]) : f32[7]\n  return %0\n}\n");
}

/* What every pass makes of a small network that is trained reads back to the same bytes. */
static const char network[] =
  "func @net(%x: f32[8,1,12,12], %y: i32[8,1], param %c: f32[1,4,1,3,3], param %w: f32[10,144], param %b: f32[10], %seed: u64[], %step: i64[]) -> f32[] {\n"
  "  %0 = reshape(%x) : f32[8,1,1,12,12]  # net.c:3 conv1\n"
  "  %1 = conv(%0, %c, stride=[1,1], lo=[1,1], hi=[1,1], dilation=[1,1], x_dilation=[1,1]) : f32[8,1,4,12,12]  # net.c:3 conv1\n"
  "  %2 = reshape(%1) : f32[8,4,12,12]  # net.c:3 conv1\n"
  "  %3 = relu(%2) : f32[8,4,12,12]  # net.c:4\n"
  "  %4 = max_pool(%3, size=[2,2], stride=[2,2], lo=[0,0], hi=[0,0], dilation=[1,1]) : f32[8,4,6,6]  # net.c:5\n"
  "  %5 = reshape(%4) : f32[8,144]  # net.c:6\n"
  "  %6 = cast(%step) : u64[]\n"
  "  %7 = dropout(%5, %seed, %6, p=0.1, stream=1) : f32[8,144]  # net.c:7\n"
  "  %8 = matmul(%7, %w, tb=1) : f32[8,10]  # net.c:8 fc\n"
  "  %9 = broadcast(%b, dims=[1]) : f32[8,10]  # net.c:8 fc\n"
  "  %10 = add(%8, %9) : f32[8,10]  # net.c:8 fc\n"
  "  %11 = log_softmax(%10, axis=1) : f32[8,10]\n"
  "  %12 = gather(%11, %y, axis=1) : f32[8,1]\n"
  "  %13 = sum(%12, axes=[0,1]) : f32[]\n"
  "  %14 = neg(%13) : f32[]\n"
  "  return loss=%14\n"
  "}\n";

static void check_stage(void *user, const char *pass, const ir_graph *g, double milliseconds) {
  int *stages = user;
  char *first = ir_print(g);
  ir_graph *h = parse(first);
  char *second = ir_print(h);
  cr_assert_str_eq(first, second, "after %s", pass);
  if (!strcmp(pass, "memory")) cr_assert(strstr(first, "  kernel @") && strstr(first, " arena=") && strstr(first, "  assign("), "%s", first);
  free(first), free(second);
  ir_graph_free(h);
  ++*stages;
}

Test(text, every_stage) {
  ir_graph *g = parse(network), *out = NULL;
  tt_error err = {0};
  int stages = 0, passes = 0;
  while (pass_table[passes].name) passes++;
  check_bytes(g, NULL);
  pass_tunings *none = pass_tunings_new("any");         /* tune and recompute run too */
  cr_assert_eq(pass_run(g, &out, NULL, NULL, &(pass_options){.train = true, .optimizer = "adam", .tunings = none, .products = PASS_BF16, .memory_budget = 1 << 30, .vector_bytes = 32, .n_registers = 16}, check_stage, &stages, &err), TT_OK, "%s", err.message);
  cr_assert_eq(stages, passes + 1);
  pass_tunings_free(none);
  ir_graph_free(out);
  ir_graph_free(g);
}

static const struct { const char *text, *message; } mistakes[] = {
  {"", "t:1:1: expected func, found the end of the text"},
  {"func f", "t:1:6: expected @, found f"},
  {"func @f(%x: f99[2]) -> () {\n  return\n}", "t:1:13: expected a type, say f32[2,3], found f99"},
  {"func @f(%x: f32) -> () {\n  return\n}", "t:1:16: expected [, found )"},
  {"func @f(%x: f32[1,1,1,1,1,1,1,1,1]) -> () {\n  return\n}", "t:1:16: expected at most 8 dimensions, found 9"},
  {"func @f(%x: f32[-1]) -> () {\n  return\n}", "t:1:16: expected dimensions of 0 or more, found -1"},
  {"func @f(%x: f32[99999999999999999999]) -> () {\n  return\n}", "t:1:17: expected a whole number of 64 bits, found 99999999999999999999"},
  {"func @f(%x: f32[], %x: f32[]) -> () {\n  return\n}", "t:1:20: expected a name that is not taken, found %x"},
  {"func @f(%1: f32[]) -> () {\n  return\n}", "t:1:9: expected a name for the argument (a number in quotes, if need be), found %1"},
  {"func @f(weight %1: f32[]) -> () {\n  return\n}", "t:1:9: expected an argument: %name: type, param %name: type or state %name: type, found weight"},
  {"func @f(%x: f32[]) -> f32[] {\n  return\n}", "t:1:23: expected 0 types, as many as return has values, found 1"},
  {"func @f(%x: f32[]) -> f32[2] {\n  return %x\n}", "t:1:23: expected f32[], the type of output 0, found f32[2]"},
  {"func @f(%x: f32[]) -> f32[] {\n  return %y\n}", "t:2:10: expected a row that is defined above, found %y"},
  {"func @f(%x: f32[]) -> f32[] {\n  return %x\n} x", "t:3:3: expected a function or the end of the text, found x"},
  {"func @f(%x: f32[]) -> f32[] {\n  return %x", "t:2:12: expected ,, found the end of the text"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = sofmax(%x) : f32[]\n  return %x\n}", "t:2:8: expected an op, perhaps softmax, found sofmax"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = qqqqqq(%x) : f32[]\n  return %x\n}", "t:2:8: expected an op, found qqqqqq"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = input(%x) : f32[]\n  return %x\n}", "t:2:8: expected inputs and params among the function's arguments, found input"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = assign(%x, %x) : f32[]\n  return %x\n}", "t:2:8: expected assign(%param, %value) without a name, found assign"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = neg(%x, %x) : f32[]\n  return %x\n}", "t:2:12: expected 1 operand of neg, found 2"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = concat(axis=0) : f32[]\n  return %x\n}", "t:2:15: expected at least 1 operand of concat, found 0"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = neg(%x %x) : f32[]\n  return %x\n}", "t:2:15: expected , or ), found %x"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = neg(%z) : f32[]\n  return %x\n}", "t:2:12: expected a row that is defined above, found %z"},
  {"func @f(%x: f32[]) -> f32[] {\n  %y = neg(%x) : f32[2]\n  return %x\n}", "t:2:18: expected f32[], which is what neg gives, found f32[2]"},
  {"func @f(%x: f32[]) -> f32[] {\n  %x = neg(%x) : f32[]\n  return %x\n}", "t:2:3: expected a name that is not taken, found %x"},
  {"func @f(%x: f32[2]) -> f32[2] {\n  %y = softmax(%x) : f32[2]\n  return %x\n}", "t:2:18: expected attribute axis of softmax, found ) without it"},
  {"func @f(%x: f32[2]) -> f32[2] {\n  %y = softmax(%x, axes=[0]) : f32[2]\n  return %x\n}", "t:2:20: expected an attribute; those of this op are, in order, axis, found axes"},
  {"func @f(%x: f32[2]) -> f32[2] {\n  %y = neg(%x, axis=0) : f32[2]\n  return %x\n}", "t:2:16: expected ), found axis"},
  {"func @f(%x: f32[2]) -> f32[2] {\n  %y = softmax(%x, axis=1.5) : f32[2]\n  return %x\n}", "t:2:25: expected a whole number, found 1.5"},
  {"func @f(%x: f32[2]) -> f32[2] {\n  %y = cast(%x, dtype=g16) : f32[2]\n  return %x\n}", "t:2:23: expected an element type, say f32, found g16"},
  {"func @f(%x: f32[2,3], %w: f32[4,5]) -> f32[2] {\n  %y = matmul(%x, %w) : f32[2,5]\n  return %x\n}", "t:2:8: matmul(%x, %w): inner sizes differ, 3 and 4\n"},
  {"func @f() -> () {\n  %y = const(value=[1,2]) : f32[3]\n  return\n}", "t:2:20: expected 3 numbers, found at most 2"},
  {"func @f() -> () {\n  %y = const(value=[1,2]) : f32[9223372036854775807,3]\n  return\n}", "t:2:20: expected 9223372036854775807 numbers, found at most 2"},
  {"func @f() -> () {\n  %y = const(value=[1,2]) : f32[1]\n  return\n}", "t:2:22: expected ] after 1 numbers, found ,"},
  {"func @f() -> () {\n  %y = const(value=[1,x]) : f32[2]\n  return\n}", "t:2:23: expected a number of type f32, found x"},
  {"func @f() -> () {\n  %y = const(value=[1,0x1p3]) : f32[2]\n  return\n}", "t:2:23: expected a number of type f32, found 0x1p3"},
  {"func @f() -> () {\n  %y = const(value=[1,256]) : u8[2]\n  return\n}", "t:2:23: expected a number of type u8, found 256"},
  {"func @f() -> () {\n  %y = const(value=[1,-1]) : u64[2]\n  return\n}", "t:2:23: expected a number of type u64, found -1"},
  {"func @f() -> () {\n  %y = const(value=2) : bool[]\n  return\n}", "t:2:20: expected a number of type bool, found 2"},
  {"func @f() -> () {\n  %y = const(value=18446744073709551616) : u64[]\n  return\n}", "t:2:20: expected a number of type u64, found 18446744073709551616"},
  {"func @f() -> () {\n  %y = const(value=1) : u64[1]\n  return\n}", "t:2:20: expected [ and the numbers of the constant, found 1"},
  {"func @f(%x: f32[]) -> () {\n  %y = neg(%x) : f32[] @-4\n  return\n}", "t:2:25: expected an offset of 0 or more, found -4"},
  {"func @f(%x: f32[]) -> () {\n  %y = neg(%x) : f32[]  # a.c\n  return\n}", "t:2:30: expected : and a line number after the file, found the end of the line"},
  {"func @f(%x: f32[]) -> () {\n  %y = neg(%x) : f32[]  # a.c:\n  return\n}", "t:2:31: expected a line number, found the end of the line"},
  {"func @f(%x: f32[]) -> () {\n  %y = neg(%x) : f32[]  # a.c:1 b c\n  return\n}", "t:2:35: expected ; or the end of the line, found c"},
  {"func @f(%\"x: f32[]) -> () {\n  return\n}", "t:1:28: expected \" to end the text that begins at column 18, found the end of the line"},
  {"func @f(%\"\\q\": f32[]) -> () {\n  return\n}", "t:1:11: expected \\\", \\\\, \\n, \\t or \\xHH, found \\q"},
  {"func @f(%\"\\x00\": f32[]) -> () {\n  return\n}", "t:1:11: expected \\xHH with two hexadecimal digits that are not 00, found x00"},
  {"func @f(param %p: f32[]) -> () {\n  assign(%p, %p)\n  assign(%p, %p)\n  return\n}", "t:3:3: assign(%p, %p): the param has a next value already\n"},
  {"func @f(%p: f32[]) -> () {\n  assign(%p, %p)\n  return\n}", "t:2:3: assign(%p, %p): %p is not a param\n"},
  {"func @f(param %p: f32[]) -> () {\n  assign(%p, %p)\n  %1 = neg(%p) : f32[]\n  return\n}", "t:3:3: expected assign or return, found %1"},
  {"func @f(param %p: i32[]) -> () {\n  return\n}", "t:1:9: param(): p of type i32 can not be trained"},
  {"func @f(%x: f32[], %y: f32[]) -> f32[] {\n  kernel @k(%y, %x) -> %a [] {\n    %a = add(%x, %y) : f32[]\n  }\n  return %a\n}", "t:2:13: expected %x, the next argument of kernel @k, found %y"},
  {"func @f(%x: f32[], %y: f32[]) -> f32[] {\n  kernel @k(%x) -> %a [] {\n    %a = add(%x, %y) : f32[]\n  }\n  return %a\n}", "t:2:15: expected %y, the next argument of kernel @k, found )"},
  {"func @f(%x: f32[], %y: f32[]) -> f32[] {\n  kernel @k(%x, %y) -> %a [] {\n    %a = neg(%x) : f32[]\n  }\n  return %a\n}", "t:2:15: expected ): there is no further argument of kernel @k, found ,"},
  {"func @f(%x: f32[]) -> f32[] {\n  kernel @k(%x) -> %b [] {\n    %a = neg(%x) : f32[]\n  }\n  return %a\n}", "t:2:20: expected %a, the next result of kernel @k, found %b"},
  {"func @f(%x: f32[]) -> f32[] {\n  kernel @k(%x) -> %a, %x [] {\n    %a = neg(%x) : f32[]\n  }\n  return %a\n}", "t:2:22: expected [: there is no further result of kernel @k, found ,"},
  {"func @f(%x: f32[]) -> f32[] {\n  kernel @k(%x) -> %a [a=1, a=2] {\n    %a = neg(%x) : f32[]\n  }\n  return %a\n}", "t:2:29: expected each entry of a plan once, found a again"},
  {"func @f(%x: f32[]) -> f32[] {\n  kernel @k(%x) -> %a [a=1,b=2,c=3,d=4,e=5,f=6,g=7,h=8,i=9] {\n    %a = neg(%x) : f32[]\n  }\n  return %a\n}", "t:2:56: expected ] after 8 entries of a plan, found i"},
  {"func @f(%x: f32[]) -> f32[] {\n  kernel @k(%x) -> %a [] {\n    assign(%x, %x)\n  }\n  return %a\n}", "t:3:5: expected a row or } of kernel @k, found assign"},
  {"func @f() -> () arena=-1 {\n  return\n}", "t:1:23: expected a size of 0 or more, found -1"},
  {"func @f(%x: f32[]) -> () {\n  \x01\n}", "t:2:3: expected a row, kernel, assign or return, found \\x01"},
};

Test(text, mistakes) {
  for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
    tt_error err = {0};
    ir_graph *g = ir_parse(mistakes[i].text, strlen(mistakes[i].text), "t", &err);
    cr_expect(!g && err.status == TT_FORMAT, "this was taken:\n%s", mistakes[i].text);
    cr_expect(!strncmp(err.message, mistakes[i].message, strlen(mistakes[i].message)), "%s\n  says      %s\n  should be %s", mistakes[i].text, err.message, mistakes[i].message);
    ir_graph_free(g);
  }
}

/* Every prefix of a text, and random changes of it, are refused or read; never worse. */
Test(text, broken, .timeout = 120) {
  const char *corpus[] = {example, all_ops};
  const char *pieces[] = {"%x", "%", "@", "\"", "\\x41", "#", ":", ";", ",", "[", "]", "{", "}", "(", ")", "->", "=", "f32[", "-1", "99999999999", "nan", "kernel @k", "return", "const(", "\n", "assign("};
  uint64_t state = 12345;
#define RANDOM(n) (state = state * 6364136223846793005u + 1442695040888963407u, (size_t)(state >> 33) % (n))
  for (size_t c = 0; c < sizeof corpus / sizeof *corpus; c++) {
    size_t n = strlen(corpus[c]);
    for (size_t i = 0; i <= n; i++) LLVMFuzzerTestOneInput((const uint8_t *)corpus[c], i);
    char *text = malloc(2 * n + 1000);
    for (int round = 0; round < 5000; round++) {
      strcpy(text, corpus[c]);
      size_t m = n;
      for (size_t k = 1 + RANDOM(3); k > 0; k--) {
        size_t at = RANDOM(m), length = 1 + RANDOM(12);
        if (at + length > m) length = m - at;
        const char *piece = pieces[RANDOM(sizeof pieces / sizeof *pieces)];
        switch (RANDOM(4)) {
          case 0: text[at] = (char)RANDOM(256); break;
          case 1: memmove(text + at, text + at + length, m - at - length), m -= length; break;                                         /* cut */
          case 2: memmove(text + at + strlen(piece), text + at, m - at), memcpy(text + at, piece, strlen(piece)), m += strlen(piece); break;
          default: memmove(text + at + length, text + at, m - at), memmove(text + at, text + RANDOM(m - length + 1), length), m += length; /* copy */
        }
      }
      LLVMFuzzerTestOneInput((const uint8_t *)text, m);
    }
    free(text);
  }
}
