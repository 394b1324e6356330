/* ops.c: ops.def as a table of data. The kind of an OP row follows from the section it stands in; a section is known by
 * its first row, so new rows go anywhere but before that. */
#include "ir.h"

#include <string.h>

#define KIND(op) ((op) < IR_select ? IR_LEAF : (op) < IR_reshape ? IR_ELEMENTWISE : (op) < IR_sum ? IR_MOVEMENT : (op) < IR_matmul ? IR_REDUCTION \
  : (op) < IR_gather ? IR_CONTRACTION : (op) < IR_scan ? IR_INDEX : (op) < IR_assign ? IR_CONTROL : IR_EFFECT)

/* Every first row is of another kind than the row before it. */
_Static_assert(IR_input == 1 && IR_random < IR_neg && IR_ge < IR_select && IR_stop_gradient < IR_reshape && IR_fold < IR_sum && IR_cumsum < IR_matmul
               && IR_conv < IR_gather && IR_dynamic_update_slice < IR_scan && IR_scan < IR_assign && IR_assign < IR_softmax, "sections of ops.def");

#define SAME false
#define BOOLEAN true
#define ATTRS(...) {__VA_ARGS__}
#define NONE {NULL, IR_ATTR_END}
#define INT(n) {#n, IR_ATTR_INT}
#define FLOAT(n) {#n, IR_ATTR_FLOAT}
#define INTS(n) {#n, IR_ATTR_INTS}
#define TYPE(n) {#n, IR_ATTR_TYPE}
#define STR(n) {#n, IR_ATTR_STR}
#define DATA(n) {#n, IR_ATTR_DATA}
#define FUNC(n) {#n, IR_ATTR_FUNC}

const ir_op_info ir_ops[IR_N_OPS] = {
  [IR_poison] = {.name = "poison"},
#define EW(NAME, ARITY, TAKES, GIVES, MEANING, ...) \
  [IR_##NAME] = {.name = #NAME, .arity = ARITY, .ew = true, .gives_bool = GIVES, .kind = IR_ELEMENTWISE, .takes = TAKES, .gradients = {__VA_ARGS__}, .meaning = #MEANING},
#define OP(NAME, ARITY, TAKES, ATTRIBUTES) [IR_##NAME] = {.name = #NAME, .arity = ARITY, .kind = KIND(IR_##NAME), .takes = TAKES, .attrs = ATTRIBUTES},
#define COMPOSITE(NAME, ARITY, TAKES, ATTRIBUTES) [IR_##NAME] = {.name = #NAME, .arity = ARITY, .kind = IR_COMPOSITE, .takes = TAKES, .attrs = ATTRIBUTES},
#include "ops.def"
};

ir_op ir_op_by_name(const char *name, size_t length) {
  for (int op = 1; op < IR_N_OPS; op++)
    if (strlen(ir_ops[op].name) == length && !memcmp(ir_ops[op].name, name, length)) return (ir_op)op;
  return IR_poison;
}
