include("${CMAKE_CURRENT_LIST_DIR}/tinytorchTargets.cmake")
