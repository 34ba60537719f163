// Writing and reading PEFs: what comes back, the same bytes twice, damage of every kind.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>

#include "base/error.h"
#include "pef/codec.h"
#include "pef/read.h"
#include "pef/small_pef.h"
#include "pef/write.h"

namespace shardwright::pef {
namespace {

namespace fs = std::filesystem;

class PefFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("pef_test_" + std::to_string(getpid()));
    fs::create_directories(folder_);
    path_ = (folder_ / "small.pef").string();
    write(path_, small_manifest(), SmallWeights().views(), {.report_json = "{\"a\": 1}"});
    bytes_ = load(path_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string load(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void save(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }
  // The message of the Error that opening the bytes throws; empty if it opens.
  std::string refusal(const std::string& bytes) const {
    save(bytes);
    try {
      File::open(path_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBrokenFile) << error.what();
      return error.what();
    }
    return "";
  }

  fs::path folder_;
  std::string path_;
  std::string bytes_;
};

TEST_F(PefFile, GivesBackWhatWasWritten) {
  const auto file = File::open(path_);
  const Manifest wanted = small_manifest();
  const Manifest& got = file->manifest();
  EXPECT_EQ(got.options, wanted.options);
  ASSERT_EQ(got.plans.size(), 2U);
  EXPECT_EQ(got.plans[1].notes, wanted.plans[1].notes);
  // The encoded forms hold every field.
  for (size_t p = 0; p < 2; ++p)
    for (size_t c = 0; c < got.plans[p].chips.size(); ++c) {
      EXPECT_EQ(encode_chip(got.plans[p].chips[c]), encode_chip(wanted.plans[p].chips[c]));
      EXPECT_EQ(encode_program(got.plans[p].chips[c].programs[0]),
                encode_program(wanted.plans[p].chips[c].programs[0]));
    }
  Manifest placed = wanted;
  for (size_t t = 0; t < placed.tensors.size(); ++t)
    placed.tensors[t].offset_bytes = got.tensors[t].offset_bytes;
  EXPECT_EQ(encode_manifest(got), encode_manifest(placed));
  EXPECT_EQ(got.plans[1].chips[0].programs[0].steps[1].attrs, ops::to_attrs(gather_columns()));
  EXPECT_EQ(file->report_json(), "{\"a\": 1}");
  EXPECT_EQ(file->size_bytes(), static_cast<int64_t>(bytes_.size()));
}

TEST_F(PefFile, TensorsAreStoredRowMajor) {
  const auto file = File::open(path_);
  for (int t = 0; t < 2; ++t) {
    const TensorView view = file->tensor(t);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % 256, 0U);
    EXPECT_TRUE(is_contiguous(view.type.shape, view.strides));
    for (int64_t i = 0; i < view.type.count(); ++i)
      ASSERT_EQ(load_element(view.type.dtype, view.data + i * 4), static_cast<double>(i));
  }
  file->verify_deep();
}

TEST_F(PefFile, DecodesOnePlanIfAsked) {
  const auto file = File::open(path_, 2);
  EXPECT_TRUE(file->manifest().plans[0].chips.empty());
  EXPECT_EQ(file->manifest().plans[1].chips.size(), 2U);
  try {
    File::open(path_, 3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_EQ(std::string(error.what()),
              path_ + ": it has no plan for 3 chips; it has plans for 1, 2");
  }
}

TEST_F(PefFile, DecodesTheFirstPlanOrNone) {
  const auto first = File::open(path_, kFirstPlan);
  EXPECT_EQ(first->manifest().plans[0].chips.size(), 1U);
  EXPECT_TRUE(first->manifest().plans[1].chips.empty());
  const auto none = File::open(path_, kNoPlan);
  ASSERT_EQ(none->manifest().plans.size(), 2U);
  for (const Plan& plan : none->manifest().plans) EXPECT_TRUE(plan.chips.empty());
}

TEST_F(PefFile, SameInputSameBytes) {
  const std::string other = (folder_ / "other.pef").string();
  write(other, small_manifest(), SmallWeights().views(), {.report_json = "{\"a\": 1}"});
  EXPECT_EQ(load(other), bytes_);
}

TEST_F(PefFile, IsAZipArchive) {
  const auto file = File::open(path_);
  FILE* pipe = popen(("unzip -t '" + path_ + "' 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string text;
  char part[256];
  while (fgets(part, sizeof(part), pipe) != nullptr) text += part;
  const int status = pclose(pipe);
  if (WEXITSTATUS(status) == 127) GTEST_SKIP() << "unzip is not installed";
  EXPECT_EQ(status, 0) << text;
  for (const File::Segment& segment : file->segments()) {
    EXPECT_EQ(segment.offset_bytes % 4096, 0);
    EXPECT_NE(text.find("testing: " + segment.name), std::string::npos) << text;
  }
}

TEST_F(PefFile, LargeTensorsStreamInPieces) {
  // More than two pieces of 16 MiB and not a multiple of a leaf; strides make the writer gather.
  constexpr int64_t kWide = 4097, kTall = 2101;
  std::vector<float> values(static_cast<size_t>(kWide * kTall));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 8191);
  Manifest manifest = small_manifest();
  manifest.tensors.push_back(
      {.name = "large", .other_names = {}, .type = {DType::kF32, {kTall, kWide}}});
  const SmallWeights weights;
  auto views = weights.views();
  views.push_back({{DType::kF32, {kTall, kWide}},
                   {1, kTall},
                   reinterpret_cast<const std::byte*>(values.data())});
  int64_t last = 0;
  write(path_, manifest, views, {.progress = [&](int64_t done, int64_t total) {
          EXPECT_GT(done, last);
          EXPECT_LE(done, total);
          last = done;
        }});
  const auto file = File::open(path_);
  EXPECT_GT(last, kWide * kTall * 4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) threads.emplace_back([&] { (void)file->tensor(2); });
  for (std::thread& thread : threads) thread.join();
  const TensorView view = file->tensor(2);
  for (int64_t i = 0; i < kTall; i += 7)
    for (int64_t j = 0; j < kWide; j += 5)
      ASSERT_EQ(load_element(DType::kF32, view.data + (i * kWide + j) * 4),
                static_cast<double>((j * kTall + i) % 8191));
  file->verify_deep();
}

TEST_F(PefFile, WithoutWeightsItOpensButHasNoBytes) {
  const SmallWeights weights;
  auto views = weights.views();
  views[0].data = nullptr;
  write(path_, small_manifest(), views);
  const auto file = File::open(path_);
  EXPECT_EQ(file->manifest().tensors[0].offset_bytes, -1);
  EXPECT_THROW((void)file->tensor(0), Error);
  EXPECT_NO_THROW((void)file->tensor(1));
}

TEST_F(PefFile, EveryTruncationIsRefused) {
  for (size_t length = bytes_.size(); length-- > 0;) {
    fs::resize_file(path_, length);
    try {
      File::open(path_);
      FAIL() << length;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kBrokenFile) << length << ": " << error.what();
    }
  }
  EXPECT_NE(refusal(bytes_.substr(0, bytes_.size() - 1)).find("truncated"), std::string::npos);
  EXPECT_NE(refusal(bytes_ + '\0'), "");
}

using PefFileSlow = PefFile;

TEST_F(PefFileSlow, EveryFlippedBitOutsideTheWeightsIsRefused) {
  std::minstd_rand random(7);
  // All bits of what is not padding: the header, the segments, their index, the ZIP directory.
  std::vector<bool> is_padding(bytes_.size(), true), is_weight(bytes_.size(), false);
  std::fill_n(is_padding.begin(), 192, false);
  int64_t index = 0;
  for (const File::Segment& segment : File::open(path_)->segments()) {
    std::vector<bool>& bits = segment.name == "weights" ? is_weight : is_padding;
    std::fill_n(bits.begin() + segment.offset_bytes, segment.size_bytes, segment.name == "weights");
    index = std::max(index, segment.offset_bytes + segment.size_bytes);
  }
  std::fill(is_padding.begin() + index, is_padding.end(), false);
  // One descriptor for all flips: opening reads what is in the file at that time.
  std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
  const auto check = [&](int64_t at, int bit) {
    const auto place = static_cast<size_t>(at);
    file.seekp(at).put(static_cast<char>(bytes_[place] ^ (1 << bit))).flush();
    try {
      File::open(path_);
      ADD_FAILURE() << "byte " << at << " bit " << bit << " was not noticed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBrokenFile) << "byte " << at << ": " << error.what();
      EXPECT_TRUE(std::string_view(error.what()).starts_with(path_)) << error.what();
    }
    file.seekp(at).put(bytes_[place]).flush();
  };
  for (int64_t at = 0; at < static_cast<int64_t>(bytes_.size()); ++at) {
    const auto place = static_cast<size_t>(at);
    if (is_weight[place]) continue;
    if (is_padding[place]) {
      check(at, static_cast<int>(random() % 8));
    } else {
      for (int bit = 0; bit < 8; ++bit) check(at, bit);
    }
  }
  EXPECT_NO_THROW(File::open(path_));
}

TEST_F(PefFile, FlippedWeightsAreFoundWhenTouched) {
  int64_t begin = 0;
  int64_t size = 0;
  for (const File::Segment& segment : File::open(path_)->segments())
    if (segment.name == "weights") {
      begin = segment.offset_bytes;
      size = segment.size_bytes;
    }
  for (int64_t at = 0; at < size; at += 13) {
    std::string bytes = bytes_;
    bytes[static_cast<size_t>(begin + at)] ^= 0x10;
    save(bytes);
    const auto file = File::open(path_);
    EXPECT_NO_THROW((void)file->tensor(0, false));
    EXPECT_THROW((void)file->tensor(0), Error);
    EXPECT_THROW((void)file->tensor(0), Error) << "the second time";
    EXPECT_THROW(file->verify_deep(), Error);
  }
}

TEST_F(PefFile, ARepeatedTensorIsOneElement) {
  SmallWeights weights;
  std::vector<TensorView> views = weights.views();
  std::fill(views[0].strides.begin(), views[0].strides.end(), 0);
  const std::string path = (folder_ / "repeated.pef").string();
  write(path, small_manifest(), views);
  const auto file = File::open(path);
  EXPECT_TRUE(file->manifest().tensors[0].repeated);
  EXPECT_FALSE(file->manifest().tensors[1].repeated);
  const TensorView view = file->tensor(0);
  EXPECT_EQ(view.strides, Strides(view.type.shape.size(), 0));
  EXPECT_EQ(
      std::memcmp(view.data, views[0].data, static_cast<size_t>(dtype_bytes(view.type.dtype))), 0);
}

TEST_F(PefFile, AnotherVersionSaysWhatToDo) {
  std::string bytes = bytes_;
  bytes[8] = 2;
  const std::string rest =
      ", written by shardwright 0.1.0; this program reads version 1.1 and later 1.x. Compile the "
      "model again with this one";
  EXPECT_EQ(refusal(bytes), path_ + " has PEF version 2.2" + rest);
  bytes[8] = 1;
  bytes[12] = 0;
  EXPECT_EQ(refusal(bytes), path_ + " has PEF version 1.0" + rest);
}

TEST_F(PefFile, UnknownFeaturesAreRefused) {
  std::string bytes = bytes_;
  bytes[23] = 1;  // of the 8 bytes of required features, the highest
  EXPECT_NE(refusal(bytes).find("version 1.2 with features 0x100000000000000"), std::string::npos)
      << refusal(bytes);
}

TEST_F(PefFile, IncompleteAndForeignFilesAreNamed) {
  std::string bytes = bytes_;
  bytes[56] = 0;
  EXPECT_NE(refusal(bytes).find("is incomplete"), std::string::npos);
  EXPECT_NE(refusal("PK\3\4 something else").find("is not a PEF"), std::string::npos);
}

TEST_F(PefFile, FullDiskLeavesNothing) {
  const std::string target = (folder_ / "new.pef").string();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{8192, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    write(target, small_manifest(), SmallWeights().views());
  } catch (const Error& error) {
    message = error.what();
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
  }
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("bytes are needed"), std::string::npos) << message;
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

}  // namespace
}  // namespace shardwright::pef
