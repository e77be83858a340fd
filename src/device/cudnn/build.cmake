# The backend `cudnn`: finds the CUDA toolkit and cuDNN, compiles the kernels and adds the sources to
# cifar_core. Included by the main CMakeLists.txt; sets CIFAR_HAS_CUDA. The libraries themselves are
# loaded when the program asks for them, so nothing is linked here.
set(CIFAR_HAS_CUDA OFF)
set(CIFAR_CUDA_ARCHITECTURES 75 80 86 89 90 CACHE STRING
  "Compute capabilities, times ten, to compile the kernels for; the last one also for later GPUs")

# Answers in `missing` why the backend cannot be built; empty if it can.
function(find_cuda missing)
  find_package(CUDAToolkit 12.0 QUIET) # searches beyond PATH
  if(NOT CUDAToolkit_FOUND OR NOT CUDAToolkit_NVCC_EXECUTABLE)
    set(${missing} "no CUDA toolkit 12 or later was found (CUDAToolkit_ROOT names its folder)"
      PARENT_SCOPE)
    return()
  endif()
  set(only "")
  if(NOT CUDNN_ROOT)
    set(CUDNN_ROOT $ENV{CUDNN_ROOT})
  endif()
  if(CUDNN_ROOT) # no other folder will do
    set(only NO_DEFAULT_PATH)
  else()
    set(beside ${CUDAToolkit_INCLUDE_DIRS} ${CUDAToolkit_LIBRARY_DIR})
  endif()
  find_path(CUDNN_INCLUDE_DIR cudnn_version.h HINTS ${CUDNN_ROOT} ${beside}
    PATH_SUFFIXES include ${only})
  find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDNN_ROOT} ${beside}
    PATH_SUFFIXES lib lib64 ${only})
  set(version "none")
  if(EXISTS "${CUDNN_INCLUDE_DIR}/cudnn_version.h")
    file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h lines
      REGEX "^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) ")
    string(REGEX REPLACE "[^0-9;]" "" lines "${lines}")
    string(REPLACE ";" "." version "${lines}")
  endif()
  if(NOT version MATCHES "^9\\." OR version VERSION_LESS 9.8)
    set(${missing} "no header of cuDNN 9.8 or later was found (CUDNN_ROOT names its folder; found: ${version})"
      PARENT_SCOPE)
    return()
  endif()

  # A toolkit without a C++ compiler that it knows is of no use.
  set(trial ${CMAKE_CURRENT_BINARY_DIR}/nvcc_trial)
  file(WRITE ${trial}.cu "__global__ void trial(int *x) { *x = 1; }\n")
  execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -cubin -o ${trial}.cubin ${trial}.cu
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    set(${missing} "${CUDAToolkit_NVCC_EXECUTABLE} does not work here:\n${output}" PARENT_SCOPE)
    return()
  endif()
  if(CUDNN_LIBRARY) # else the program must be told where it is when it runs
    get_filename_component(cudnn_folder "${CUDNN_LIBRARY}" DIRECTORY)
  endif()
  set(CUDA_NVCC ${CUDAToolkit_NVCC_EXECUTABLE} PARENT_SCOPE)
  set(CUDA_VERSION ${CUDAToolkit_VERSION} PARENT_SCOPE)
  set(CUDA_VERSION_MAJOR ${CUDAToolkit_VERSION_MAJOR} PARENT_SCOPE)
  set(CUDA_INCLUDE_DIRS ${CUDAToolkit_INCLUDE_DIRS} ${CUDNN_INCLUDE_DIR} PARENT_SCOPE)
  set(CUDA_LIBRARY_DIRS ${CUDAToolkit_LIBRARY_DIR} ${cudnn_folder} PARENT_SCOPE)
  set(CUDNN_VERSION ${version} PARENT_SCOPE)
  set(${missing} "" PARENT_SCOPE)
endfunction()

if(CIFAR_CUDA STREQUAL "OFF")
  set(missing "CIFAR_CUDA is OFF")
else()
  find_cuda(missing)
endif()
if(missing)
  message(STATUS "GPU backend: not built: ${missing}")
  if(CIFAR_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CIFAR_CUDA is ON, but ${missing}")
  endif()
  return()
endif()
set(CIFAR_HAS_CUDA ON)
list(JOIN CIFAR_CUDA_ARCHITECTURES ", " architectures)
message(STATUS "GPU backend: cudnn, with CUDA ${CUDA_VERSION} (${CUDA_NVCC}) and cuDNN "
  "${CUDNN_VERSION} (${CUDNN_INCLUDE_DIR}, ${CUDNN_LIBRARY}), for compute capabilities "
  "${architectures} (times ten) and later")

# The kernels, for each GPU as machine code and for later ones as PTX, in one file that backend.c
# includes.
set(folder ${CMAKE_CURRENT_SOURCE_DIR}/src/device/cudnn)
set(kernels ${CMAKE_CURRENT_BINARY_DIR}/kernels.fatbin)
set(flags -fatbin -std=c++17 -O3 -Xptxas -warn-spills
  -I ${CMAKE_CURRENT_SOURCE_DIR}/include -D_Noreturn=) # a word of C alone
if(CIFAR_WERROR)
  list(APPEND flags -Werror all-warnings -Xcompiler -Wall,-Wextra -Xptxas -Werror)
endif()
foreach(architecture ${CIFAR_CUDA_ARCHITECTURES})
  if(NOT architecture MATCHES "^[0-9]+[af]?$")
    message(FATAL_ERROR "CIFAR_CUDA_ARCHITECTURES: '${architecture}': a compute capability times ten "
      "is expected, such as 90")
  endif()
  list(APPEND flags -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET CIFAR_CUDA_ARCHITECTURES -1 last)
list(APPEND flags -gencode arch=compute_${last},code=compute_${last})
add_custom_command(OUTPUT ${kernels}
  COMMAND ${CUDA_NVCC} ${flags} -o ${kernels} ${folder}/kernels.cu
  DEPENDS ${folder}/kernels.cu ${folder}/kernels.h ${folder}/../gpu/cursor.h
    ${CMAKE_CURRENT_SOURCE_DIR}/include/device/device.h
  COMMENT "Compiling the GPU's kernels" VERBATIM)
set_source_files_properties(src/device/cudnn/backend.c PROPERTIES
  COMPILE_DEFINITIONS "CIFAR_KERNELS=\"${kernels}\"" OBJECT_DEPENDS ${kernels})

list(APPEND CIFAR_SOURCES
  src/device/cudnn/backend.c
  src/device/cudnn/libraries.c
  src/device/cudnn/plan.c
  src/device/cudnn/step.c
  src/device/gpu/driver.c
  src/device/gpu/gpu.c
  src/device/gpu/pass.c
  src/device/gpu/step.c)
