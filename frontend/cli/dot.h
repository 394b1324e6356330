/* dot.h: pictures of graphs. */
#ifndef TT_CLI_DOT_H
#define TT_CLI_DOT_H

#include "../../ir/ir.h"

char *cli_dot(const ir_graph *g);                                                 /* malloc'ed; NULL: no memory */
bool cli_dot_to_svg(const char *dot, const char *path, tt_error *err);            /* runs Graphviz; path NULL: standard output */

#endif
