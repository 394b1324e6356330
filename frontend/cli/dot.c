/* dot.c: a graph as a picture, in Graphviz's language: one box a row, kernels as clusters, the user's source line under each op. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "dot.h"

typedef struct { char *text; size_t size, capacity; bool failed; } writer;

static void put(writer *w, const char *format, ...) TT_PRINTF(2, 3);
static void put(writer *w, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(NULL, 0, format, args);
  va_end(args);
  if (w->failed || n < 0) return;
  if (w->size + (size_t)n + 1 > w->capacity) {
    size_t capacity = 2 * (w->size + (size_t)n + 1);
    char *text = realloc(w->text, capacity);
    if (!text) {
      w->failed = true;
      return;
    }
    w->text = text, w->capacity = capacity;
  }
  va_start(args, format);
  vsnprintf(w->text + w->size, (size_t)n + 1, format, args);
  va_end(args);
  w->size += (size_t)n;
}

static void put_escaped(writer *w, const char *text) {
  for (; *text; text++) put(w, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void put_row(writer *w, const ir_graph *g, ir_ref r) {
  const ir_node *n = ir_at(g, r);
  tt_shape s = ir_shape(g, r);
  char type[128];
  bool leaf = ir_ops[n->op].kind == IR_LEAF;
  put(w, "    n%u [label=\"", r);
  if (n->op == IR_input || n->op == IR_param) put_escaped(w, ir_str(n, "name"));
  else put(w, "%s", ir_ops[n->op].name);
  put(w, "\\n%s", tt_type_text(n->dtype, &s, type, sizeof type));
  if (n->origin) {
    const ir_origin *o = &g->origins[n->origin];
    const char *base = strrchr(o->file, '/');
    put(w, "\\n");
    put_escaped(w, base ? base + 1 : o->file);
    put(w, ":%d", o->line);
  }
  put(w, "\"%s];\n", n->op == IR_param ? ", shape=box, style=filled, fillcolor=\"#dde8f6\"" : leaf ? ", shape=ellipse" : "");
}

char *cli_dot(const ir_graph *g) {
  writer w = {0};
  bool *live = ir_live(g);
  if (!live) return NULL;
  put(&w, "digraph \"%s\" {\n  rankdir=TB;\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];\n", g->name);
  for (uint32_t k = 0; k < g->n_kernels || k == 0; k++) {
    if (k) put(&w, "  subgraph cluster_%u {\n    label=\"%s\"; color=\"#999999\"; fontname=\"sans-serif\"; fontsize=10;\n", k, g->kernels[k].name);
    for (ir_ref r = 1; r < g->n_nodes; r++)
      if (live[r] && ir_at(g, r)->region == k && ir_at(g, r)->op != IR_assign) put_row(&w, g, r);
    if (k) put(&w, "  }\n");
  }
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (!live[r]) continue;
    if (n->op == IR_assign) put(&w, "  n%u -> n%u [style=dashed, constraint=false, label=\"assign\", fontsize=9];\n", n->args[1], n->args[0]);
    else
      for (uint32_t i = 0; i < n->n_args; i++) put(&w, "  n%u -> n%u;\n", n->args[i], r);
  }
  for (uint32_t i = 0; i < g->n_outputs; i++)
    put(&w, "  out%u [label=\"%s\", shape=ellipse, style=bold];\n  n%u -> out%u;\n", i, g->outputs[i].name ? g->outputs[i].name : "result", g->outputs[i].value, i);
  put(&w, "}\n");
  free(live);
  if (w.failed) {
    free(w.text);
    return NULL;
  }
  return w.text;
}

bool cli_dot_to_svg(const char *dot, const char *path, tt_error *err) {
  bool standard = !path || strcmp(path, "-") == 0;
  int pipes[2];
  fflush(stdout);
  if (pipe(pipes) != 0) return tt_fail(err, TT_IO, "error: no pipe to Graphviz: %s\n  at --format=svg\n  fix: use --format=dot, and dot -Tsvg on it", strerror(errno)), false;
  struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
  sigaction(SIGPIPE, &ignore, &before);                /* Graphviz may end before it has read all */
  pid_t child = fork();
  if (child == 0) {
    sigaction(SIGPIPE, &before, NULL);
    dup2(pipes[0], 0);
    close(pipes[0]), close(pipes[1]);
    if (standard) execlp("dot", "dot", "-Tsvg", (char *)NULL);
    else execlp("dot", "dot", "-Tsvg", "-o", path, (char *)NULL);
    _exit(127);
  }
  close(pipes[0]);
  size_t length = strlen(dot), done = 0;
  while (child > 0 && done < length) {
    ssize_t n = write(pipes[1], dot + done, length - done);
    if (n <= 0) break;
    done += (size_t)n;
  }
  close(pipes[1]);
  sigaction(SIGPIPE, &before, NULL);
  int status = 0;
  if (child > 0) waitpid(child, &status, 0);
  if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  bool missing = child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127;
  tt_fail(err, TT_IO, "error: %s\n  at --format=svg\n  fix: %s", missing ? "Graphviz's dot is not installed" : "Graphviz's dot failed",
          missing ? "install graphviz, or use --format=dot" : "give an output that may be written, or use --format=dot");
  return false;
}
