/* tinytorch.h: #include <tinytorch/tinytorch.h>; the interface is in frontend/tinytorch.h. */
#include "frontend/tinytorch.h"
