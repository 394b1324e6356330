/* What ops mean: small programs in the language whose rows %got and %want must be equal, and the large and the odd cases
 * against loops written here from the definitions in ops.def. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ir/ir.h"

static uint64_t state = 42;
static double uniform(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 40) / (1 << 23) - 1;
}

static void equal(const char *type, const char *rows) {
  char text[4000];
  snprintf(text, sizeof text, "func @t() -> %s, %s {\n%s\n  return %%got, %%want\n}\n", type, type, rows);
  tt_error err = {0};
  ir_graph *g = ir_parse(text, strlen(text), "t", &err);
  cr_assert(g, "%s\n%s", err.message, text);
  void **values = calloc(g->n_nodes, sizeof *values);
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s", err.message);
  ir_ref got = g->outputs[0].value, want = g->outputs[1].value;
  tt_dtype t = (tt_dtype)ir_at(g, got)->dtype;
  tt_shape s = ir_shape(g, got);
  size_t size = tt_dtype_size(t);
  for (int64_t i = 0; i < tt_shape_count(&s); i++) {
    const char *a = (const char *)values[got] + (size_t)i * size, *b = (const char *)values[want] + (size_t)i * size;
    double x = ir_load_double(t, a, 0), y = ir_load_double(t, b, 0);
    cr_expect(!memcmp(a, b, size) || (x != x && y != y), "element %lld is %.17g, not %.17g\n%s", (long long)i, x, y, rows);
  }
  ir_values_free(g, values);
  ir_graph_free(g);
}

/* One op on constants: op1("neg", "f32[2]", "1,2", "f32[2]", "-1,-2"). */
static void op1(const char *op, const char *type, const char *a, const char *gives, const char *want) {
  char rows[2000];
  snprintf(rows, sizeof rows, "  %%a = const(value=[%s]) : %s\n  %%got = %s(%%a) : %s\n  %%want = const(value=[%s]) : %s", a, type, op, gives, want, gives);
  equal(gives, rows);
}
static void op2(const char *op, const char *type, const char *a, const char *b, const char *gives, const char *want) {
  char rows[2000];
  snprintf(rows, sizeof rows, "  %%a = const(value=[%s]) : %s\n  %%b = const(value=[%s]) : %s\n  %%got = %s(%%a, %%b) : %s\n  %%want = const(value=[%s]) : %s", a, type, b, type, op, gives, want, gives);
  equal(gives, rows);
}

Test(eval, integers_wrap) {
  op2("add", "i8[3]", "127,-128,5", "1,-1,6", "i8[3]", "-128,127,11");
  op2("add", "u8[2]", "255,1", "1,2", "u8[2]", "0,3");
  op2("sub", "u16[2]", "0,7", "1,2", "u16[2]", "65535,5");
  op2("sub", "i64[1]", "-9223372036854775808", "1", "i64[1]", "9223372036854775807");
  op2("mul", "i16[2]", "300,-3", "300,3", "i16[2]", "24464,-9");
  op2("mul", "u16[1]", "65535", "65535", "u16[1]", "1");
  op2("mul", "i64[1]", "9223372036854775807", "2", "i64[1]", "-2");
  op1("neg", "i8[3]", "-128,1,0", "i8[3]", "-128,-1,0");
  op1("neg", "u32[2]", "1,0", "u32[2]", "4294967295,0");
  op1("abs", "i32[3]", "-2147483648,-5,5", "i32[3]", "-2147483648,5,5");
  op1("abs", "u64[1]", "18446744073709551615", "u64[1]", "18446744073709551615");
  op1("sign", "i8[3]", "-9,0,9", "i8[3]", "-1,0,1");
  op1("sign", "u8[2]", "0,200", "u8[2]", "0,1");
  op1("relu", "i8[3]", "-9,0,9", "i8[3]", "0,0,9");
  op1("relu", "u8[2]", "200,0", "u8[2]", "200,0");
}

Test(eval, integer_division) {
  op2("div", "i8[6]", "7,-7,7,-7,-128,5", "2,2,-2,-2,-1,0", "i8[6]", "3,-3,-3,3,-128,0");
  op2("div", "i64[2]", "-9223372036854775808,1", "-1,0", "i64[2]", "-9223372036854775808,0");
  op2("div", "u64[2]", "18446744073709551615,3", "2,0", "u64[2]", "9223372036854775807,0");
  op2("fmod", "i8[6]", "7,-7,7,-7,-128,5", "2,2,-2,-2,-1,0", "i8[6]", "1,-1,1,-1,0,0");
  op2("fmod", "i64[1]", "-9223372036854775808", "-1", "i64[1]", "0");
  op2("fmod", "u32[2]", "4294967295,7", "10,0", "u32[2]", "5,0");
}

Test(eval, bits) {
  op2("shl", "i8[5]", "1,1,-1,64,1", "7,8,1,1,-1", "i8[5]", "-128,0,-2,-128,0");
  op2("shl", "u64[3]", "1,1,3", "63,64,1", "u64[3]", "9223372036854775808,0,6");
  op2("shr", "i8[4]", "-128,-128,64,-1", "7,8,9,-1", "i8[4]", "-1,-1,0,-1");
  op2("shr", "u8[3]", "128,128,255", "7,8,4", "u8[3]", "1,0,15");
  op1("not", "i8[2]", "0,-1", "i8[2]", "-1,0");
  op1("not", "u16[1]", "1", "u16[1]", "65534");
  op1("not", "bool[2]", "0,1", "bool[2]", "1,0");
  op2("and", "bool[4]", "0,0,1,1", "0,1,0,1", "bool[4]", "0,0,0,1");
  op2("or", "bool[4]", "0,0,1,1", "0,1,0,1", "bool[4]", "0,1,1,1");
  op2("xor", "u8[1]", "12", "10", "u8[1]", "6");
}

Test(eval, nan_and_comparisons) {
  op2("max", "f32[4]", "nan,1,1,-inf", "1,nan,2,-1", "f32[4]", "nan,nan,2,-1");
  op2("min", "f64[4]", "nan,1,1,-inf", "1,nan,2,-1", "f64[4]", "nan,nan,1,-inf");
  op2("max", "u64[1]", "9223372036854775808", "1", "u64[1]", "9223372036854775808");
  op2("max", "bool[4]", "0,0,1,1", "0,1,0,1", "bool[4]", "0,1,1,1");
  op2("min", "i8[1]", "-1", "1", "i8[1]", "-1");
  op1("relu", "f16[4]", "nan,-1,-inf,2", "f16[4]", "nan,0,0,2");
  op2("eq", "f32[3]", "nan,1,0", "nan,1,-0", "bool[3]", "0,1,1");
  op2("ne", "f32[3]", "nan,1,0", "nan,1,-0", "bool[3]", "1,0,0");
  op2("lt", "f32[3]", "nan,1,1", "1,nan,2", "bool[3]", "0,0,1");
  op2("le", "f32[3]", "nan,1,2", "1,1,1", "bool[3]", "0,1,0");
  op2("gt", "u64[2]", "9223372036854775808,1", "1,2", "bool[2]", "1,0");
  op2("ge", "i64[2]", "-1,2", "1,2", "bool[2]", "0,1");
  op2("lt", "bool[2]", "0,1", "1,1", "bool[2]", "1,0");
  op1("sign", "f32[4]", "-3,-0,7,nan", "f32[4]", "-1,0,1,0");
}

Test(eval, functions) {
  op1("exp", "f32[4]", "0,1,-inf,1000", "f32[4]", "1,2.7182817,0,inf");
  op1("expm1", "f32[2]", "1e-10,0", "f32[2]", "1e-10,0");
  op1("log", "f32[4]", "1,0,-1,2.7182817", "f32[4]", "0,-inf,nan,0.99999994");
  op1("log1p", "f64[1]", "1e-18", "f64[1]", "1e-18");
  op1("sqrt", "f32[2]", "2,-1", "f32[2]", "1.4142135,nan");
  op1("rsqrt", "f32[2]", "4,0", "f32[2]", "0.5,inf");
  op1("sigmoid", "f32[4]", "0,100,-100,-inf", "f32[4]", "0.5,1,3.8e-44,0");
  op1("sigmoid", "f64[2]", "-740,740", "f64[2]", "4.19955798965e-322,1");
  op1("tanh", "f32[2]", "100,-0", "f32[2]", "1,-0");
  op1("erf", "f32[2]", "1,-inf", "f32[2]", "0.8427008,-1");
  op1("floor", "f32[3]", "-0.5,2.5,inf", "f32[3]", "-1,2,inf");
  op1("ceil", "f32[2]", "-0.5,2.5", "f32[2]", "-0,3");
  op1("round", "f32[5]", "0.5,1.5,2.5,-2.5,1e10", "f32[5]", "0,2,2,-2,1e10");
  op2("fmod", "f32[4]", "5.5,-5.5,1,1", "2,2,0,inf", "f32[4]", "1.5,-1.5,nan,1");
  op2("pow", "f32[4]", "2,-2,0,-8", "10,3,0,0.33333334", "f32[4]", "1024,-8,1,nan");
  op2("atan2", "f32[2]", "1,-1", "-1,-1", "f32[2]", "2.3561945,-2.3561945");
  op2("div", "f32[3]", "1,0,1", "0,0,3", "f32[3]", "inf,nan,0.33333334");
  /* f16 and bf16 round each result to nearest even. */
  op2("add", "f16[3]", "2048,2048,65504", "1,3,32", "f16[3]", "2048,2052,inf");
  op2("mul", "bf16[2]", "1.0078125,3", "1.0078125,2", "bf16[2]", "1.015625,6");
  op1("exp", "f16[1]", "1", "f16[1]", "2.719");
}

Test(eval, casts) {
  op1("cast", "f32[9]", "1.9,-1.9,300,-300,nan,inf,-inf,127.9,-128.9", "i8[9]", "1,-1,127,-128,0,127,-128,127,-128");
  op1("cast", "f32[6]", "1.9,-1.9,300,nan,inf,-inf", "u8[6]", "1,0,255,0,255,0");
  op1("cast", "f64[5]", "9.3e18,-9.3e18,9007199254740993,inf,-inf", "i64[5]", "9223372036854775807,-9223372036854775808,9007199254740992,9223372036854775807,-9223372036854775808");
  op1("cast", "f64[3]", "1e20,1.8e19,-1", "u64[3]", "18446744073709551615,18000000000000000000,0");
  op1("cast", "f32[5]", "0,-0,0.1,nan,-5", "bool[5]", "0,0,1,1,1");
  op1("cast", "i32[3]", "300,-1,128", "i8[3]", "44,-1,-128");
  op1("cast", "i32[2]", "-1,5", "u64[2]", "18446744073709551615,5");
  op1("cast", "i32[3]", "0,256,-1", "bool[3]", "0,1,1");
  op1("cast", "bool[2]", "0,1", "f16[2]", "0,1");
  op1("cast", "u64[2]", "18446744073709551615,5", "f64[2]", "18446744073709551616,5");
  op1("cast", "i64[2]", "9007199254740993,-3", "f64[2]", "9007199254740992,-3");
  op1("cast", "i64[1]", "9007199791611905", "f32[1]", "9007200328482816");     /* just above half way: rounding to f64 first would give 9007199254740992 */
  op1("cast", "f64[3]", "0.1,1e300,-1e-300", "f32[3]", "0.1,inf,-0");
  op1("cast", "f32[3]", "65519,65520,1e-8", "f16[3]", "65504,inf,0");
  op1("bitcast", "f32[2]", "1,-0", "u32[2]", "1065353216,2147483648");
  op1("bitcast", "u16[1]", "15360", "f16[1]", "1");
  op1("stop_gradient", "i8[1]", "3", "i8[1]", "3");
  /* All pairs of types keep small whole numbers. */
  for (int a = 0; a < TT_N_DTYPES; a++)
    for (int b = 0; b < TT_N_DTYPES; b++) {
      char from[20], to[20];
      snprintf(from, sizeof from, "%s[2]", tt_dtype_name(a)), snprintf(to, sizeof to, "%s[2]", tt_dtype_name(b));
      op1("cast", from, "0,1", to, "0,1");
    }
}

#define X "  %x = const(value=[1,2,3,4,5,6]) : f32[2,3]\n"

Test(eval, movement) {
  equal("f32[3,2]", X "  %got = reshape(%x) : f32[3,2]\n  %want = const(value=[1,2,3,4,5,6]) : f32[3,2]");
  equal("f32[3,2]", X "  %got = permute(%x, perm=[1,0]) : f32[3,2]\n  %want = const(value=[1,4,2,5,3,6]) : f32[3,2]");
  equal("i8[3,1,2]", "  %x = const(value=[1,2,3,4,5,6]) : i8[1,2,3]\n  %got = permute(%x, perm=[2,0,1]) : i8[3,1,2]\n  %want = const(value=[1,4,2,5,3,6]) : i8[3,1,2]");
  equal("f32[2,2,3]", X "  %got = broadcast(%x, dims=[0,2]) : f32[2,2,3]\n  %want = const(value=[1,2,3,1,2,3,4,5,6,4,5,6]) : f32[2,2,3]");
  equal("f64[2,3]", "  %x = const(value=[7,8]) : f64[2,1]\n  %got = broadcast(%x, dims=[0,1]) : f64[2,3]\n  %want = const(value=[7,7,7,8,8,8]) : f64[2,3]");
  equal("bool[2]", "  %x = const(value=1) : bool[]\n  %got = broadcast(%x, dims=[]) : bool[2]\n  %want = const(value=[1,1]) : bool[2]");
  equal("f32[1,2]", X "  %got = slice(%x, start=[1,0], stop=[2,3], step=[1,2]) : f32[1,2]\n  %want = const(value=[4,6]) : f32[1,2]");
  equal("f32[2,0]", X "  %got = slice(%x, start=[0,3], stop=[2,3], step=[1,1]) : f32[2,0]\n  %want = const(value=[]) : f32[2,0]");
  equal("f32[3,7]", X "  %v = const(value=9) : f32[]\n  %got = pad(%x, %v, lo=[1,0], hi=[0,2], interior=[0,1]) : f32[3,7]\n"
        "  %want = const(value=[9,9,9,9,9,9,9,1,9,2,9,3,9,9,4,9,5,9,6,9,9]) : f32[3,7]");
  equal("f32[3]", "  %x = const(value=[]) : f32[0]\n  %v = const(value=9) : f32[]\n  %got = pad(%x, %v, lo=[1], hi=[2], interior=[5]) : f32[3]\n  %want = const(value=[9,9,9]) : f32[3]");
  equal("f32[2,5]", X "  %y = const(value=[7,8]) : f32[2,1]\n  %e = const(value=[]) : f32[2,0]\n  %got = concat(%y, %e, %x, %y, axis=1) : f32[2,5]\n  %want = const(value=[7,1,2,3,7,8,4,5,6,8]) : f32[2,5]");
  equal("f32[2,3]", X "  %got = reverse(%x, axes=[0,1]) : f32[2,3]\n  %want = const(value=[6,5,4,3,2,1]) : f32[2,3]");
  equal("f32[2,3]", X "  %got = reverse(%x, axes=[1]) : f32[2,3]\n  %want = const(value=[3,2,1,6,5,4]) : f32[2,3]");
  equal("f32[2,2,2]", X "  %got = unfold(%x, axis=1, size=2, stride=1, dilation=1) : f32[2,2,2]\n  %want = const(value=[1,2,2,3,4,5,5,6]) : f32[2,2,2]");
  equal("f32[1,3,2]", X "  %got = unfold(%x, axis=0, size=2, stride=3, dilation=1) : f32[1,3,2]\n  %want = const(value=[1,4,2,5,3,6]) : f32[1,3,2]");
  equal("u8[2,2]", "  %x = const(value=[1,2,3,4,5]) : u8[5]\n  %got = unfold(%x, axis=0, size=2, stride=1, dilation=3) : u8[2,2]\n  %want = const(value=[1,4,2,5]) : u8[2,2]");
  equal("f32[2,3]", "  %x = const(value=[1,2,3,4,5,6,7,8]) : f32[2,2,2]\n  %got = fold(%x, axis=1, length=3, stride=1, dilation=1) : f32[2,3]\n  %want = const(value=[1,5,4,5,13,8]) : f32[2,3]");
  equal("i8[6]", "  %x = const(value=[100,2,100,4]) : i8[2,2]\n  %got = fold(%x, axis=0, length=6, stride=2, dilation=2) : i8[6]\n  %want = const(value=[100,0,102,0,4,0]) : i8[6]");
  equal("f32[4]", "  %c = const(value=[1,0,0,1]) : bool[4]\n  %a = const(value=[1,2,3,nan]) : f32[4]\n  %b = const(value=[5,6,inf,8]) : f32[4]\n  %got = select(%c, %a, %b) : f32[4]\n  %want = const(value=[1,6,inf,nan]) : f32[4]");
  equal("i16[2,3]", "  %got = iota(axis=1) : i16[2,3]\n  %want = const(value=[0,1,2,0,1,2]) : i16[2,3]");
  equal("f16[2,3]", "  %got = iota(axis=0) : f16[2,3]\n  %want = const(value=[0,0,0,1,1,1]) : f16[2,3]");
}

Test(eval, reductions) {
  equal("f32[3]", X "  %got = sum(%x, axes=[0]) : f32[3]\n  %want = const(value=[5,7,9]) : f32[3]");
  equal("f32[2]", X "  %got = sum(%x, axes=[1]) : f32[2]\n  %want = const(value=[6,15]) : f32[2]");
  equal("f32[]", X "  %got = prod(%x, axes=[0,1]) : f32[]\n  %want = const(value=720) : f32[]");
  equal("f32[2,3]", X "  %got = sum(%x, axes=[]) : f32[2,3]\n  %want = const(value=[1,2,3,4,5,6]) : f32[2,3]");
  equal("i32[2]", "  %x = iota(axis=1) : i32[3,5,2]\n  %y = iota(axis=0) : i32[3,5,2]\n  %z = mul(%x, %y) : i32[3,5,2]\n  %got = sum(%z, axes=[0,1]) : i32[2]\n  %want = const(value=[30,30]) : i32[2]");
  equal("f32[3]", "  %x = const(value=[1,nan,3,4,0,-inf]) : f32[2,3]\n  %got = amax(%x, axes=[0]) : f32[3]\n  %want = const(value=[4,nan,3]) : f32[3]");
  equal("f32[2]", "  %x = const(value=[1,2,3,4,0,-inf]) : f32[2,3]\n  %got = amin(%x, axes=[1]) : f32[2]\n  %want = const(value=[1,-inf]) : f32[2]");
  equal("u64[]", "  %x = const(value=[1,18446744073709551615]) : u64[2]\n  %got = amax(%x, axes=[0]) : u64[]\n  %want = const(value=18446744073709551615) : u64[]");
  equal("u8[]", "  %x = const(value=[200,100]) : u8[2]\n  %got = sum(%x, axes=[0]) : u8[]\n  %want = const(value=44) : u8[]");
  equal("i8[]", "  %x = const(value=[100,3]) : i8[2]\n  %got = prod(%x, axes=[0]) : i8[]\n  %want = const(value=44) : i8[]");
  equal("f16[]", "  %x = const(value=[2048,1,1]) : f16[3]\n  %got = sum(%x, axes=[0]) : f16[]\n  %want = const(value=2050) : f16[]");
  /* Empty: the identity. */
#define EMPTY(op, t, v) equal(t "[2]", "  %x = const(value=[]) : " t "[0,2]\n  %got = " op "(%x, axes=[0]) : " t "[2]\n  %want = const(value=[" v "," v "]) : " t "[2]")
  EMPTY("sum", "f32", "0");
  EMPTY("prod", "i32", "1");
  EMPTY("amax", "f32", "-inf");
  EMPTY("amin", "f64", "inf");
  EMPTY("amax", "i8", "-128");
  EMPTY("amin", "i8", "127");
  EMPTY("amax", "i64", "-9223372036854775808");
  EMPTY("amin", "i64", "9223372036854775807");
  EMPTY("amin", "u64", "18446744073709551615");
  EMPTY("amax", "u16", "0");
  EMPTY("amin", "bool", "1");
  EMPTY("amax", "bool", "0");
  equal("i64[3]", "  %x = const(value=[1,5,3,4,5,nan]) : f32[2,3]\n  %got = argmax(%x, axis=0) : i64[3]\n  %want = const(value=[1,0,1]) : i64[3]");
  equal("i64[2]", "  %x = const(value=[1,nan,nan,4,1,1]) : f32[2,3]\n  %got = argmax(%x, axis=1) : i64[2]\n  %want = const(value=[1,0]) : i64[2]");
  equal("i64[2]", "  %x = const(value=[nan,2,2,4,1,1]) : f32[2,3]\n  %got = argmin(%x, axis=1) : i64[2]\n  %want = const(value=[0,1]) : i64[2]");
  equal("i64[]", "  %x = const(value=[1,9223372036854775808]) : u64[2]\n  %got = argmax(%x, axis=0) : i64[]\n  %want = const(value=1) : i64[]");
  equal("f32[2,3]", X "  %got = cumsum(%x, axis=1) : f32[2,3]\n  %want = const(value=[1,3,6,4,9,15]) : f32[2,3]");
  equal("f32[2,3]", X "  %got = cumsum(%x, axis=0, exclusive=1) : f32[2,3]\n  %want = const(value=[0,0,0,1,2,3]) : f32[2,3]");
  equal("f32[2,3]", X "  %got = cumsum(%x, axis=1, reversed=1) : f32[2,3]\n  %want = const(value=[6,5,3,15,11,6]) : f32[2,3]");
  equal("f32[2,3]", X "  %got = cumsum(%x, axis=1, exclusive=1, reversed=1) : f32[2,3]\n  %want = const(value=[5,3,0,11,6,0]) : f32[2,3]");
  equal("i8[3]", "  %x = const(value=[100,100,1]) : i8[3]\n  %got = cumsum(%x, axis=0) : i8[3]\n  %want = const(value=[100,-56,-55]) : i8[3]");
}

Test(eval, index) {
  equal("f32[2,3]", X "  %i = const(value=[1,0,1,0,-1,2]) : i64[2,3]\n  %got = gather(%x, %i, axis=0) : f32[2,3]\n  %want = const(value=[4,2,6,1,0,0]) : f32[2,3]");
  equal("f32[2,2]", X "  %i = const(value=[2,0,1,255]) : u8[2,2]\n  %got = gather(%x, %i, axis=1) : f32[2,2]\n  %want = const(value=[3,1,5,0]) : f32[2,2]");
  equal("f32[1]", "  %x = const(value=[]) : f32[0]\n  %i = const(value=[0]) : i32[1]\n  %got = gather(%x, %i, axis=0) : f32[1]\n  %want = const(value=[0]) : f32[1]");
  equal("f32[2,3]", X "  %i = const(value=[0,0,2,7]) : i32[2,2]\n  %s = const(value=[10,20,30,40]) : f32[2,2]\n  %got = scatter_add(%x, %i, %s, axis=1) : f32[2,3]\n  %want = const(value=[31,2,3,4,5,36]) : f32[2,3]");
  equal("f32[2,3]", X "  %i = const(value=[1,-1,0]) : i64[1,3]\n  %s = const(value=[10,20,30]) : f32[1,3]\n  %got = scatter_add(%x, %i, %s, axis=0) : f32[2,3]\n  %want = const(value=[1,2,33,14,5,6]) : f32[2,3]");
  equal("f32[2,3]", X "  %i = const(value=[]) : i64[0,3]\n  %s = const(value=[]) : f32[0,3]\n  %got = scatter_add(%x, %i, %s, axis=0) : f32[2,3]\n  %want = const(value=[1,2,3,4,5,6]) : f32[2,3]");
  equal("i64[7]", "  %x = const(value=[3,nan,1,-inf,3,nan,1]) : f32[7]\n  %got = argsort(%x, axis=0) : i64[7]\n  %want = const(value=[3,2,6,0,4,1,5]) : i64[7]");
  equal("i64[7]", "  %x = const(value=[3,nan,1,-inf,3,nan,1]) : f32[7]\n  %got = argsort(%x, axis=0, descending=1) : i64[7]\n  %want = const(value=[1,5,0,4,2,6,3]) : i64[7]");
  equal("i64[3,2]", "  %x = const(value=[3,1,2,1,1,0]) : u8[3,2]\n  %got = argsort(%x, axis=0) : i64[3,2]\n  %want = const(value=[2,2,1,0,0,1]) : i64[3,2]");
  equal("f32[1,2]", X "  %i = const(value=[9,-4]) : i64[2]\n  %got = dynamic_slice(%x, %i, sizes=[1,2]) : f32[1,2]\n  %want = const(value=[4,5]) : f32[1,2]");
  equal("f32[2,1]", X "  %i = const(value=[1,1]) : i64[2]\n  %got = dynamic_slice(%x, %i, sizes=[2,1]) : f32[2,1]\n  %want = const(value=[2,5]) : f32[2,1]");
  equal("f32[]", "  %x = const(value=5) : f32[]\n  %i = const(value=[]) : i64[0]\n  %got = dynamic_slice(%x, %i, sizes=[]) : f32[]\n  %want = const(value=5) : f32[]");
  equal("f32[2,3]", X "  %u = const(value=[7,8]) : f32[1,2]\n  %i = const(value=[1,7]) : i64[2]\n  %got = dynamic_update_slice(%x, %u, %i) : f32[2,3]\n  %want = const(value=[1,2,3,4,7,8]) : f32[2,3]");
}

Test(eval, random) {
  char want[400];
  int n = 0;
  for (int i = 0; i < 5; i++) n += snprintf(want + n, sizeof want - (size_t)n, "%s%u", i ? "," : "", tt_random_half(7, 3, 2, (uint64_t)i));
  char rows[800];
  snprintf(rows, sizeof rows, "  %%a = const(value=7) : u64[]\n  %%b = const(value=3) : u64[]\n  %%got = random(%%a, %%b, stream=2) : u16[5]\n  %%want = const(value=[%s]) : u16[5]", want);
  equal("u16[5]", rows);
}

/* ---- every elementwise row */

/* All pairs of bytes, against arithmetic in int. */
static int byte_result(ir_op op, bool is_signed, int a, int b) {
  int bits = b & 255;
  switch (op) {
    case IR_add: return a + b;
    case IR_sub: return a - b;
    case IR_mul: return a * b;
    case IR_div: return b ? a / b : 0;
    case IR_fmod: return b ? a % b : 0;
    case IR_max: return a > b ? a : b;
    case IR_min: return a < b ? a : b;
    case IR_and: return a & b;
    case IR_or: return a | b;
    case IR_xor: return a ^ b;
    case IR_shl: return bits < 8 ? (int)((unsigned)a << bits) : 0;
    case IR_shr: return bits < 8 ? a >> bits : is_signed && a < 0 ? -1 : 0;
    case IR_eq: return a == b;
    case IR_ne: return a != b;
    case IR_lt: return a < b;
    case IR_le: return a <= b;
    case IR_gt: return a > b;
    case IR_ge: return a >= b;
    case IR_neg: return -a;
    case IR_abs: return a < 0 ? -a : a;
    case IR_sign: return a > 0 ? 1 : a < 0 ? -1 : 0;
    case IR_relu: return a < 0 ? 0 : a;
    case IR_not: return ~a;
    default: cr_assert(false, "no meaning of %s on bytes", ir_ops[op].name); return 0;
  }
}

Test(eval, all_bytes) {
  for (int is_signed = 0; is_signed < 2; is_signed++) {
    tt_dtype t = is_signed ? TT_I8 : TT_U8;
    ir_graph *g = ir_graph_new("bytes");
    ir_ref in[2] = {ir_input(g, "a", t, (tt_shape){1, {65536}}), ir_input(g, "b", t, (tt_shape){1, {65536}})};
    uint8_t *a = malloc(65536), *b = malloc(65536);
    for (int i = 0; i < 65536; i++) a[i] = (uint8_t)(i >> 8), b[i] = (uint8_t)i;
    g->plain = true;
    for (int op = 1; op < IR_N_OPS; op++)
      if (ir_ops[op].ew && tt_dtype_in(t, ir_ops[op].takes)) ir_output_add(g, NULL, ir_emit(g, (ir_op)op, in, (uint32_t)ir_ops[op].arity, NULL, 0));
    cr_assert_eq(g->n_outputs, 23);
    void **values = calloc(g->n_nodes, sizeof *values);
    values[in[0]] = a, values[in[1]] = b;
    tt_error err = {0};
    cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s", err.message);
    for (uint32_t o = 0; o < g->n_outputs; o++) {
      ir_op op = (ir_op)ir_at(g, g->outputs[o].value)->op;
      const uint8_t *y = values[g->outputs[o].value];
      for (int i = 0; i < 65536; i++) {
        int want = byte_result(op, is_signed, is_signed ? (int8_t)a[i] : a[i], is_signed ? (int8_t)b[i] : b[i]);
        cr_assert_eq(y[i], (uint8_t)want, "%s(%d, %d) of %s is %d, not %d", ir_ops[op].name, a[i], b[i], tt_dtype_name(t), y[i], (uint8_t)want);
      }
    }
    ir_values_free(g, values);
    ir_graph_free(g);
    free(a), free(b);
  }
}

/* Every row on every type that it takes: a long tensor has, at each place, what that element alone gives; and f32, f16 and bf16
 * give what f64 gives, rounded. */
Test(eval, every_type) {
  enum { N = 1100 };
  for (int op = 1; op < IR_N_OPS; op++)
    for (int t = 0; t < TT_N_DTYPES; t++) {
      if (!ir_ops[op].ew || !tt_dtype_in((tt_dtype)t, ir_ops[op].takes)) continue;
      const int64_t sizes[] = {N, 1};
      size_t size = tt_dtype_size((tt_dtype)t);
      char *data[3], *out = calloc(N, 8), *wide[3];
      double one[8] = {0};
      for (int k = 0; k < 3; k++) {
        data[k] = calloc(N, 8), wide[k] = calloc(N, 8);
        for (int i = 0; i < N; i++) ir_store_double((tt_dtype)t, data[k], i, t == TT_BOOL ? uniform() > 0 : tt_dtype_in((tt_dtype)t, TT_REAL) ? 3 * uniform() : floor(100 * uniform()));
        for (int i = 0; i < N; i++) ir_store_double(TT_F64, wide[k], i, ir_load_double((tt_dtype)t, data[k], i));
      }
      for (int round = 0; round < (tt_dtype_in((tt_dtype)t, TT_REAL) ? 3 : 2); round++) {
        tt_dtype type = round == 2 ? TT_F64 : (tt_dtype)t;
        ir_graph *g = ir_graph_new("one");
        ir_ref in[3];
        for (int k = 0; k < 3; k++) in[k] = ir_input(g, (const char *[]){"a", "b", "c"}[k], type, (tt_shape){1, {sizes[round != 0]}});
        ir_ref r = ir_emit(g, (ir_op)op, in, (uint32_t)ir_ops[op].arity, NULL, 0);
        cr_assert(r, "%s", g->error.message);
        tt_error err = {0};
        if (round == 0) cr_assert_eq(ir_eval_node(g, r, (const void *const *)data, out, &err), TT_OK, "%s", err.message);
        for (int i = 0; round && i < N; i++) {
          size_t at = round == 2 ? 8 : size;
          const void *args[3] = {(round == 2 ? wide[0] : data[0]) + i * at, (round == 2 ? wide[1] : data[1]) + i * at, NULL};
          cr_assert_eq(ir_eval_node(g, r, args, one, &err), TT_OK, "%s", err.message);
          double got = ir_load_double(ir_ops[op].gives_bool ? TT_BOOL : (tt_dtype)t, out, i), want = one[0];
          if (round == 2 && !ir_ops[op].gives_bool) {
            char stored[8];
            ir_store_double((tt_dtype)t, stored, 0, one[0]);
            want = ir_load_double((tt_dtype)t, stored, 0);
          } else want = ir_load_double(ir_ops[op].gives_bool ? TT_BOOL : (tt_dtype)t, one, 0);
          cr_assert(got == want || (got != got && want != want), "%s of %s, element %d: %.17g, not %.17g", ir_ops[op].name, tt_dtype_name((tt_dtype)t), i, got, want);
        }
        ir_graph_free(g);
      }
      for (int k = 0; k < 3; k++) free(data[k]), free(wide[k]);
      free(out);
    }
}

/* ---- contractions against sums written from the definition */

typedef struct { ir_graph *g; ir_ref x, w, y; void **values; } problem;

static void run(problem *p) {
  ir_output_add(p->g, NULL, p->y);
  cr_assert_eq(p->g->error.status, TT_OK, "%s", p->g->error.message);
  p->values = calloc(p->g->n_nodes, sizeof *p->values);
  for (int k = 0; k < 2; k++) {
    ir_ref r = k ? p->w : p->x;
    tt_shape s = ir_shape(p->g, r);
    tt_dtype t = (tt_dtype)ir_at(p->g, r)->dtype;
    p->values[r] = malloc((size_t)tt_shape_count(&s) * tt_dtype_size(t) + 1);
    for (int64_t i = 0; i < tt_shape_count(&s); i++) ir_store_double(t, p->values[r], i, tt_dtype_in(t, TT_REAL) ? uniform() : floor(100 * uniform()));
  }
  tt_error err = {0};
  cr_assert_eq(ir_eval(p->g, p->values, &err), TT_OK, "%s", err.message);
}
static void done(problem *p) {
  free(p->values[p->x]), free(p->values[p->w]);
  ir_values_free(p->g, p->values);
  ir_graph_free(p->g);
}
/* Element i of the result, against a sum made in double: rounded once, or modulo the type's size. */
static void check_element(const problem *p, int64_t i, double sum) {
  tt_dtype t = (tt_dtype)ir_at(p->g, p->y)->dtype;
  double got = ir_load_double(t, p->values[p->y], i), want;
  char stored[8];
  ir_store_double(t, stored, 0, sum);
  want = ir_load_double(t, stored, 0);
  if (t == TT_I8) want = (int8_t)(int64_t)sum;
  cr_assert(fabs(got - want) <= (t == TT_F64 ? 1e-13 : t == TT_F32 ? 1e-7 * fabs(want) : t == TT_F16 ? 1e-3 * fabs(want) : 0), "element %lld is %.17g, not %.17g", (long long)i, got, want);
}

Test(eval, matmul) {
  const tt_dtype types[] = {TT_F32, TT_F64, TT_F16, TT_I8};
  for (int k = 0; k < 4 * 4 * 2; k++) {
    bool ta = k & 1, tb = k & 2;
    tt_dtype t = types[k / 4 % 4];
    int64_t S = k / 16 ? 3 : 1, B = 2, M = 4, K = 6, N = 5;
    problem p = {.g = ir_graph_new("m")};
    p.x = ir_input(p.g, "x", t, (tt_shape){3, {B, ta ? K : M, ta ? M : K}});
    p.w = ir_input(p.g, "w", t, (tt_shape){3, {B, tb ? N : K, tb ? K : N}});
    p.y = ir_matmul(p.g, p.x, p.w, ta, tb, S);
    run(&p);
    for (int64_t s = 0; s < S; s++)
      for (int64_t b = 0; b < B; b++)
        for (int64_t m = 0; m < M; m++)
          for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            for (int64_t j = s * K / S; j < (s + 1) * K / S; j++)
              sum += ir_load_double(t, p.values[p.x], b * M * K + (ta ? j * M + m : m * K + j)) * ir_load_double(t, p.values[p.w], b * K * N + (tb ? n * K + j : j * N + n));
            check_element(&p, ((s * B + b) * M + m) * N + n, sum);
          }
    done(&p);
  }
  equal("f32[2,2]", "  %a = const(value=[]) : f32[2,0]\n  %b = const(value=[]) : f32[0,2]\n  %got = matmul(%a, %b) : f32[2,2]\n  %want = const(value=[0,0,0,0]) : f32[2,2]");
  equal("f32[0,2]", "  %a = const(value=[]) : f32[0,1]\n  %b = const(value=[1,2]) : f32[1,2]\n  %got = matmul(%a, %b) : f32[0,2]\n  %want = const(value=[]) : f32[0,2]");
}

/* y[n,g,o,*od] = sum over c, *k of x at (od*stride - lo + k*dilation)/x_dilation, where that is a whole number inside of x. */
static void check_conv(tt_dtype t, int spatial, int64_t N, int64_t G, int64_t C, int64_t O, const int64_t *D, const int64_t *Kd, ir_conv_attrs a) {
  problem p = {.g = ir_graph_new("c")};
  tt_shape sx = {3 + spatial, {N, G, C}}, sw = {3 + spatial, {G, O, C}};
  for (int i = 0; i < spatial; i++) sx.dim[3 + i] = D[i], sw.dim[3 + i] = Kd[i];
  p.x = ir_input(p.g, "x", t, sx);
  p.w = ir_input(p.g, "w", t, sw);
  p.y = ir_conv(p.g, p.x, p.w, &a);
  run(&p);
  tt_shape sy = ir_shape(p.g, p.y);
  int64_t S = a.split > 1 ? a.split : 1, first = S > 1, od[3], k[3], taps = 1;
  for (int i = 0; i < spatial; i++) taps *= Kd[i];
  for (int64_t e = 0; e < tt_shape_count(&sy); e++) {
    int64_t rest = e;
    for (int i = spatial - 1; i >= 0; i--) od[i] = rest % sy.dim[first + 3 + i], rest /= sy.dim[first + 3 + i];
    int64_t o = rest % O, g = rest / O % G, n = rest / O / G % N, s = rest / O / G / N;
    double sum = 0;
    for (int64_t c = s * C / S; c < (s + 1) * C / S; c++)
      for (int64_t tap = 0; tap < taps; tap++) {
        int64_t rest_tap = tap, at = (n * G + g) * C + c;
        bool inside = true;
        for (int i = spatial - 1; i >= 0; i--) k[i] = rest_tap % Kd[i], rest_tap /= Kd[i];
        for (int i = 0; i < spatial; i++) {
          int64_t xd = a.x_dilation[i] ? a.x_dilation[i] : 1, q = od[i] * (a.stride[i] ? a.stride[i] : 1) - a.lo[i] + k[i] * (a.dilation[i] ? a.dilation[i] : 1);
          inside &= q >= 0 && q % xd == 0 && q / xd < D[i];
          at = at * D[i] + q / xd;
        }
        if (inside) sum += ir_load_double(t, p.values[p.x], at) * ir_load_double(t, p.values[p.w], ((g * O + o) * C + c) * taps + tap);
      }
    check_element(&p, e, sum);
  }
  done(&p);
}

Test(eval, conv) {
  int64_t d7[] = {7, 6, 5}, k3[] = {3, 2, 3}, k1[] = {1, 1, 1};
  check_conv(TT_F32, 1, 2, 1, 3, 2, d7, k3, (ir_conv_attrs){0});
  check_conv(TT_F32, 2, 2, 2, 4, 3, d7, k3, (ir_conv_attrs){.stride = {2, 1}, .lo = {1, 0}, .hi = {1, 2}});
  check_conv(TT_F64, 2, 1, 1, 2, 2, d7, k3, (ir_conv_attrs){.dilation = {2, 3}, .lo = {0, 4}, .hi = {5, 0}});
  check_conv(TT_F16, 2, 1, 3, 2, 1, d7, k3, (ir_conv_attrs){.x_dilation = {2, 3}, .lo = {2, 1}, .hi = {2, 1}});
  check_conv(TT_I8, 2, 1, 1, 4, 2, d7, k3, (ir_conv_attrs){.x_dilation = {3, 2}, .stride = {2, 3}, .dilation = {1, 2}, .lo = {3, 9}, .hi = {1, 8}, .split = 2});
  check_conv(TT_F32, 3, 2, 1, 6, 2, d7, k3, (ir_conv_attrs){.stride = {2, 2, 1}, .lo = {1, 1, 1}, .hi = {1, 1, 1}, .split = 3});
  check_conv(TT_F32, 3, 1, 2, 2, 2, d7, k1, (ir_conv_attrs){.x_dilation = {2, 1, 2}, .lo = {9, 0, 9}, .hi = {0, 0, 9}});
  int64_t none[] = {0, 6}, k2[] = {2, 2};
  check_conv(TT_F32, 2, 1, 1, 2, 2, none, k2, (ir_conv_attrs){.lo = {1, 0}, .hi = {1, 0}});
  check_conv(TT_F32, 2, 1, 1, 0, 2, d7, k2, (ir_conv_attrs){0});
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Fast enough to be compared with: printed, and a tenth of the aim fails, so that a busy machine does not. */
Test(eval, speed) {
  problem p = {.g = ir_graph_new("m")};
  p.x = ir_input(p.g, "x", TT_F32, (tt_shape){2, {200, 200}});
  p.w = ir_input(p.g, "w", TT_F32, (tt_shape){2, {200, 200}});
  p.y = ir_matmul(p.g, p.x, p.w, false, true, 1);
  double begin = seconds();
  run(&p);
  double matmul = 2 * 200. * 200 * 200 / (seconds() - begin) * 1e-9;
  done(&p);
  p = (problem){.g = ir_graph_new("c")};
  p.x = ir_input(p.g, "x", TT_F32, (tt_shape){5, {1, 1, 32, 28, 28}});
  p.w = ir_input(p.g, "w", TT_F32, (tt_shape){5, {1, 32, 32, 3, 3}});
  p.y = ir_conv(p.g, p.x, p.w, &(ir_conv_attrs){.lo = {1, 1}, .hi = {1, 1}});
  begin = seconds();
  run(&p);
  double conv = 2 * 28. * 28 * 32 * 32 * 9 / (seconds() - begin) * 1e-9;
  done(&p);
  printf("eval: matmul %.2f, conv %.2f GFLOP/s\n", matmul, conv);
  cr_expect(matmul > 0.03 && conv > 0.03, "matmul %.3f, conv %.3f GFLOP/s", matmul, conv);
}

Test(eval, refuses) {
  tt_error err = {0};
  const char *text = "func @f(%x: f32[3]) -> f32[3] {\n  %y = softmax(%x, axis=0) : f32[3]  # net.c:5\n  return %y\n}\n";
  ir_graph *g = ir_parse(text, strlen(text), "t", &err);
  void **values = calloc(g->n_nodes, sizeof *values);
  cr_assert_eq(ir_eval(g, values, &err), TT_INVALID);
  cr_assert(strstr(err.message, "x has no data"), "%s", err.message);
  float x[3] = {1, 2, 3};
  values[ir_find(g, "x")] = x;
  memset(&err, 0, sizeof err);
  cr_assert_eq(ir_eval(g, values, &err), TT_INVALID);
  cr_assert(strstr(err.message, "decompose first") && strstr(err.message, "net.c:5"), "%s", err.message);
  ir_values_free(g, values);
  ir_graph_free(g);
}

/* A param's next value is what assign's second operand is; reads see the old one. */
Test(eval, assign) {
  tt_error err = {0};
  const char *text = "func @f(param %p: f32[2]) -> f32[2] {\n  %y = add(%p, %p) : f32[2]\n  %z = neg(%p) : f32[2]\n  assign(%p, %y)\n  return %z\n}\n";
  ir_graph *g = ir_parse(text, strlen(text), "t", &err);
  void **values = calloc(g->n_nodes, sizeof *values);
  float p[2] = {1, 2};
  values[ir_find(g, "p")] = p;
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s", err.message);
  const float *next = values[g->effects[0]], *z = values[g->outputs[0].value];
  cr_assert(next[0] == 2 && next[1] == 4 && z[0] == -1 && z[1] == -2 && p[0] == 1);
  ir_values_free(g, values);
  ir_graph_free(g);
}
